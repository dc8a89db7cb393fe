"""What every record of a file is: a value that, read back, has these fields and no others."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """What a file says of itself: read back, its fields must be these."""

    model_config = ConfigDict(frozen=True, extra="forbid")
