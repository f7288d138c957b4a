"""How do counts and densities leave as a DICOM report?

A structured report by template TID 1500 with a group per class, unverified: no person has looked at it. Needs the extra
`dicom`.
"""

from __future__ import annotations

from collections.abc import Mapping

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    AlgorithmIdentification,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)

from app.formats.dicom import Origin
from app.formats.dicomcodes import (
    ALGORITHM_FAMILY,
    CATEGORY,
    COMMENT,
    COUNT,
    DENSITY,
    DEVICE,
    NO_UNITS,
    PER_SQUARE_MILLIMETER,
    PRIVATE,
    PROCEDURE,
    of_type,
)
from app.formats.dicomparts import MAKER, common, concept, settled, source_image
from app.formats.document import NOTICE


def report(origin: Origin, counts: Mapping[int, int], area_mm2: float) -> Comprehensive3DSR:
    """The report of a slide.

    Args:
        origin: of the results.
        counts: nuclei per class id, zeros too; 0 for those whose class stayed open.
        area_mm2: that was analysed, above 0.

    Raises:
        InvalidImage: if the slide's file lacks what a report must repeat.
    """
    image = source_image(origin.image)
    device = DeviceObserverIdentifyingAttributes(
        origin.uid("device"), name=MAKER, manufacturer_name=MAKER, model_name=MAKER
    )
    source = SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID)
    content = MeasurementReport(
        ObservationContext(observer_device_context=ObserverContext(concept(DEVICE), device)),
        concept(PROCEDURE),
        [_group(origin, source, type_id, count, area_mm2) for type_id, count in counts.items()],
    )
    said = f"{NOTICE} Densities refer to the {area_mm2:.6f} mm2 that were analysed."
    content[0].ContentSequence.append(TextContentItem(concept(COMMENT), said, relationship_type="CONTAINS"))
    made = Comprehensive3DSR(
        [image],
        content[0],
        is_complete=True,
        is_final=False,
        is_verified=False,
        coding_schemes=[CodingSchemeIdentificationItem(PRIVATE, name="Karyon's own codes, until some are assigned")],
        **common(origin, "sr"),
    )
    return settled(made, origin)


def _group(
    origin: Origin, source: SourceImageForMeasurementGroup, type_id: int, count: int, area_mm2: float
) -> MeasurementsAndQualitativeEvaluations:
    label, code = of_type(type_id)
    density = round(count / area_mm2, 2)
    return MeasurementsAndQualitativeEvaluations(
        TrackingIdentifier(origin.uid("tracking", type_id), label),
        finding_category=concept(CATEGORY),
        finding_type=concept(code),
        algorithm_id=AlgorithmIdentification(
            origin.model,
            origin.model_version,
            [f"{name}={value}" for name, value in origin.parameters().items()],
            concept(ALGORITHM_FAMILY),
            MAKER,
        ),
        measurements=[
            Measurement(concept(COUNT), count, concept(NO_UNITS)),
            Measurement(concept(DENSITY), density, concept(PER_SQUARE_MILLIMETER)),
        ],
        source_images=[source],
    )
