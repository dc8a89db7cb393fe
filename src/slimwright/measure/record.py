"""What every record of a file is: a value that, read back, has these fields alone, with numbers in their ranges."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MOST = 10**15  # of anything that is counted or measured: a petabyte, thirty thousand years in milliseconds

Count = Annotated[int, Field(ge=0, le=MOST)]
Size = Annotated[int, Field(gt=0, le=2**24)]  # of a dimension
Amount = Annotated[float, Field(ge=0, le=MOST)]
Time = Annotated[float, Field(gt=0, le=MOST)]
Error = Annotated[float, Field(ge=0, allow_inf_nan=True)]  # infinite where outputs are no numbers
Number = Annotated[float, Field(ge=-MOST, le=MOST)]


class Record(BaseModel):
    """What a file says of itself: read back, its fields must be these."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
