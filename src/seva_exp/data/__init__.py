"""Data sources: where samples come from, one module each. A new one adds its line to the union."""

from __future__ import annotations

from typing import Annotated

from seva_exp.core.spec import BY_KIND, by_kind
from seva_exp.data.base import NOT_DRAWN, DataSource, Hasher, SampleSet
from seva_exp.data.coco import CocoData
from seva_exp.data.folder import FolderData
from seva_exp.data.hf import HfData
from seva_exp.data.instruct import InstructData
from seva_exp.data.jsonl import JsonlData
from seva_exp.data.llava_665k import Llava665kData
from seva_exp.data.pairs import PairsData
from seva_exp.data.parquet import ParquetData
from seva_exp.data.shapes import ShapesData
from seva_exp.data.shapes_instruct import ShapesInstructData
from seva_exp.data.webdataset import WebdatasetData

_Union = (
    CocoData
    | FolderData
    | HfData
    | InstructData
    | JsonlData
    | Llava665kData
    | PairsData
    | ParquetData
    | ShapesData
    | ShapesInstructData
    | WebdatasetData
)

AnyData = Annotated[_Union, BY_KIND]
"""The field type of a config that holds a data source."""
DATA: dict[str, type[DataSource]] = by_kind(_Union)
"""kind -> class."""
