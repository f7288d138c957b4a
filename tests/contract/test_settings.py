"""Settings: safe by default, spelt right or not at all, and documented."""

from __future__ import annotations

import hashlib

import pytest
from pydantic import ValidationError

from app.settings import ApiKey, Settings, is_loopback, load_settings, strangers

KEY = hashlib.sha256(b"secret").hexdigest()


def test_a_misspelt_setting_is_a_stranger_and_data_folders_are_not():
    env = ["PATH", "KARYON_PORT", "KARYON_DATA", "KARYON_GOLDEN", "KARYON_PROT", "karyon_hots"]
    assert strangers(env) == ["KARYON_PROT", "karyon_hots"]


def test_a_misspelt_setting_stops_the_start():
    with pytest.raises(SystemExit, match="KARYON_PROT"):
        load_settings({"KARYON_PROT": "8000"})


@pytest.mark.parametrize("name", ["KARYON_MAX_BYTES", "KARYON_MIN_MPP", "KARYON_API_KEYS", "KARYON_PROFILE"])
def test_a_value_that_makes_no_sense_stops_the_start_without_being_shown(monkeypatch, name):
    monkeypatch.setenv(name, "hunter2")
    with pytest.raises(SystemExit) as stop:
        load_settings({})
    assert name in str(stop.value)
    assert "hunter2" not in str(stop.value)


def test_by_default_only_this_machine_is_served():
    assert is_loopback(Settings().host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "karyon.example.org"])
def test_a_public_address_needs_keys_or_a_word(host):
    with pytest.raises(ValidationError, match="KARYON_ALLOW_ANONYMOUS"):
        Settings(host=host)
    assert Settings(host=host, allow_anonymous=True).host == host
    assert Settings(host=host, api_keys=f"ward3:{KEY}").host == host


def test_keys_are_pairs_and_an_id_may_have_two(monkeypatch):
    monkeypatch.setenv("KARYON_API_KEYS", f"ward3:{KEY}, ward3:{KEY[::-1].upper()}")
    assert Settings().api_keys == (ApiKey("ward3", KEY), ApiKey("ward3", KEY[::-1]))


def test_settings_do_not_change():
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_an_empty_variable_is_an_unset_one(monkeypatch):
    monkeypatch.setenv("KARYON_THREADS", "")
    assert Settings().threads is None
