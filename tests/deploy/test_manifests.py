"""The Kubernetes manifests: valid, closed, and in agreement with image, settings and probes."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.api.routes import router
from app.settings import Settings, strangers
from tests.deploy.conftest import PROJECT

FOLDER = PROJECT / "deploy/k8s"
MANIFESTS = {
    str(path.relative_to(FOLDER)): yaml.safe_load(path.read_text())
    for path in sorted(FOLDER.glob("*/*.yaml"))
    if path.name != "kustomization.yaml"
}
VARIANTS = ["cpu", "gpu"]
VERSIONS = ["1.31", kubernetes_validate.latest_version()]  # older clusters, and what is new


def pod(variant: str) -> dict[str, Any]:
    """What the pods of a variant are."""
    spec: dict[str, Any] = MANIFESTS[f"{variant}/deployment.yaml"]["spec"]["template"]["spec"]
    return spec


def container(variant: str) -> dict[str, Any]:
    """Its only container."""
    (one,) = pod(variant)["containers"]
    return dict(one)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_what_the_api_takes(name, version):
    kubernetes_validate.validate(MANIFESTS[name], ".".join(version.split(".")[:2]), strict=True)


@pytest.mark.parametrize("folder", ["base", *VARIANTS])
def test_a_kustomization_names_all_that_lies_beside_it(folder):
    named = yaml.safe_load((FOLDER / folder / "kustomization.yaml").read_text())["resources"]
    beside = {path.name for path in (FOLDER / folder).glob("*.yaml")} - {"kustomization.yaml", "secret.example.yaml"}
    assert set(named) == beside | (set() if folder == "base" else {"../base"})


@pytest.mark.parametrize("variant", VARIANTS)
def test_its_variables_are_settings_with_sensible_values(variant, monkeypatch):
    given = MANIFESTS["base/configmap.yaml"]["data"] | {
        one["name"]: one.get("value") or MANIFESTS["base/secret.example.yaml"]["stringData"]["api-keys"]
        for one in container(variant)["env"]
    }
    assert strangers(given) == []
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert Settings(host="0.0.0.0").device == {"cpu": "cpu", "gpu": "cuda"}[variant]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_service_of_the_same_name_adds_no_variables(variant):
    assert strangers(["KARYON_SERVICE_HOST", "KARYON_PORT_80_TCP"])  # what Kubernetes would add stops the start
    assert pod(variant)["enableServiceLinks"] is False


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_pod_may_do_nothing_that_it_need_not(variant):
    spec, one = pod(variant), container(variant)
    assert spec["automountServiceAccountToken"] is False
    assert (spec["securityContext"]["runAsNonRoot"], spec["securityContext"]["runAsUser"]) == (True, 10001)
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_probes_ask_for_what_there_is(variant):
    one, there = container(variant), {route.path for route in router.routes}
    startup, ready = (one[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness"))
    alive = one["livenessProbe"]["exec"]["command"]
    assert (startup, ready, alive[-1]) == ("/healthz/startup", "/healthz/ready", "live")
    assert {startup, ready, f"/healthz/{alive[-1]}", "/metrics"} <= there
    assert f"docker/{alive[-2].rsplit('/', 1)[1]} /opt/bin/" in (PROJECT / "docker/Dockerfile").read_text()


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_kept_stays_within_its_volume(variant):
    given = MANIFESTS["base/configmap.yaml"]["data"]
    (volume,) = (one for one in pod(variant)["volumes"] if one["name"] == "slides")
    bound = int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 2**30
    assert int(given["KARYON_STORE_QUOTA"]) + 2 * int(given["KARYON_SLIDE_MAX_BYTES"]) <= bound


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_grace_period_holds_the_whole_drain(variant, monkeypatch):
    for name, value in MANIFESTS["base/configmap.yaml"]["data"].items():
        monkeypatch.setenv(name, value)
    settings, asleep = Settings(), int(container(variant)["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod(variant)["terminationGracePeriodSeconds"] >= asleep + settings.drain_delay_s + settings.shutdown_s + 10


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_folder_that_the_image_writes_to_is_a_volume(variant):
    mounted = {one["mountPath"] for one in container(variant)["volumeMounts"]}
    written = re.search(r"RUN install -d -o 10001 -g 10001 (.+)", (PROJECT / "docker/Dockerfile").read_text())
    assert mounted == set(written[1].split()) | {"/tmp"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_image_bears_the_projects_version(variant):
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert container(variant)["image"].removesuffix("-cuda") == f"karyon:{version}"


def test_the_gpu_variant_differs_in_what_the_device_asks_for_alone():
    cpu, gpu = (MANIFESTS[f"{variant}/deployment.yaml"]["spec"] for variant in VARIANTS)
    one, other = container("cpu"), container("gpu")
    assert {key for key in cpu if cpu[key] != gpu[key]} == {"strategy", "template"}
    assert {key for key in pod("gpu") if pod("gpu")[key] != pod("cpu").get(key)} == {"tolerations", "containers"}
    assert {key for key in one if one[key] != other[key]} == {"image", "env", "resources"}
    assert other["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_the_selectors_find_the_pods():
    labels = MANIFESTS["cpu/deployment.yaml"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        MANIFESTS["base/service.yaml"]["spec"]["selector"],
        MANIFESTS["base/pods.yaml"]["spec"]["selector"],
        MANIFESTS["base/disruption.yaml"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["base/network.yaml"]["spec"]["podSelector"]["matchLabels"],
    ]
    assert selectors == [labels] * 4


def test_prometheus_asks_the_headless_service():
    jobs = yaml.safe_load((PROJECT / "deploy/prometheus/kubernetes.yml").read_text())["scrape_configs"]
    (lookup,) = next(job for job in jobs if job["job_name"] == "karyon")["dns_sd_configs"]
    pods = MANIFESTS["base/pods.yaml"]
    assert lookup["names"][0].startswith(f"{pods['metadata']['name']}.")
    assert lookup["port"] == pods["spec"]["ports"][0]["port"] == container("cpu")["ports"][0]["containerPort"]
