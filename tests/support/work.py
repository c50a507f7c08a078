"""A profile of counted work with round numbers."""

from perjoule.work.profile import WorkProfile

PROFILE = WorkProfile(
    name="one",
    device="cpu",
    device_model="Fake",
    dtypes=("float32",),
    j_per_flop=1e-9,
    j_per_byte=1e-8,
    j_per_operator=0.01,
    j_per_call=0.5,
    level_error=0.4,
    shape_error=0.3,
    origin="as stated",
)
