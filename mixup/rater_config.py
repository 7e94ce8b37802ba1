"""Who rates a pool: its own columns, a reference library or a judge; and models that are asked.

How a config is read and shown is as in ``mixup.config``.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mixup.config import Amount, Count, RatingClass, Section, Share, default_type


class RatedField(Section):
    """Where a rating stands in an input row, and how its values are read."""

    field: str = "rating"
    """The column of the input rows that holds the rating."""
    scale: tuple[float, float] | None = (1.0, 10.0)
    """The lowest and highest rating of a numeric column; mapped linearly onto 1-10."""
    classes: dict[str, RatingClass] | None = None
    """For a column of labels: the rating class 0-5 of each one (true and false are lower case)."""

    @model_validator(mode="after")
    def _one_mapping(self) -> Self:
        if self.classes is None and self.scale is None:
            raise ValueError("one of scale (numbers) and classes (labels) is needed")
        if self.scale is not None and self.scale[0] >= self.scale[1]:
            raise ValueError(f"scale {self.scale} must be [lowest, highest]")
        return self


class ColumnRater(RatedField):
    """Ratings come with the data; a row without one stays unrated and is left out."""

    type: Literal["column"] = "column"


class ReferenceRater(RatedField):
    """Unrated rows get a KNN-Bayes posterior from the rated ones, never counted as observed."""

    type: Literal["reference"] = "reference"
    library: list[str] = []
    """What to compare with: a built library, as its folder or as a workspace of `mixup
    build-reference`, which stands for its current one; or rated files in any input format. Empty
    takes the rated part of the pool."""


class EngineConfig(Section):
    """A model that a pool of vLLM engine actors runs, and what each of them asks for."""

    model: str = "Qwen/Qwen2.5-1.5B-Instruct"
    """The model: a folder, a hub id, `bundled:smollm2`, or `bundled:distiller`."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Sampling temperature; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling."""
    max_tokens: Count = 128
    """Longest output in tokens."""
    context_tokens: Count = 4096
    """The engine's context window: prompt and output together."""
    engines: Count = 1
    """vLLM engine actors."""
    engine_cpus: Amount = 1.0
    """CPUs of each engine actor."""
    engine_gpus: Amount = 1.0
    """GPUs of each engine actor; 0 runs vLLM on the CPU in float32."""
    engine_memory_gb: Annotated[float, Field(gt=0)] = 2.0
    """Without a GPU: memory for model and KV cache; with one, the share is `gpu_memory_share`."""
    gpu_memory_share: Share = 0.85
    """Share of a GPU's memory that the engine takes."""


class EngineJudge(EngineConfig):
    """A judge model in a pool of vLLM engines of this cluster."""

    type: Literal["vllm"] = "vllm"
    structured: Literal["regex", "none"] = "regex"
    """Constrain answers to the rating's JSON form, or leave them free."""
    batch_rows: Count = 64
    """Rows handed to an engine at once; commits follow each batch."""

    @model_validator(mode="after")
    def _window(self) -> Self:
        if self.max_tokens >= self.context_tokens:
            raise ValueError("max_tokens must be below context_tokens")
        return self


class EndpointJudge(Section):
    """A judge model behind an OpenAI-compatible `/v1/chat/completions`."""

    type: Literal["endpoint"] = "endpoint"
    base_url: str
    """The address up to and with `/v1`, such as `http://127.0.0.1:8000/v1`."""
    model: str
    """The model's name at the endpoint. It is all that is known of the model: one that changes
    behind its name is not noticed, so give a dated name where there is one."""
    api_key_env: str = "OPENAI_API_KEY"
    """The name of the environment variable that holds the key. The default may be unset, as for a
    local server; one that is named here must be set."""
    temperature: Annotated[float, Field(ge=0)] | None = None
    """Sampling temperature; null sends none, so that the endpoint's own applies."""
    max_tokens: Count = 128
    """Longest answer in tokens; a model that reasons first needs more."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The request's field for it; OpenAI's reasoning models take the second only."""
    structured: Literal["auto", "json_schema", "json_object", "none"] = "auto"
    """Structured output. `auto` asks for `json_schema`, and for none where that is refused."""
    concurrency: Count = 16
    """Requests in flight."""
    timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """Longest wait for one answer."""
    retries: Annotated[int, Field(ge=0)] = 4
    """Further requests for a row after a timeout, a lost connection, or status 408, 429 or 5xx."""
    backoff_s: Annotated[float, Field(gt=0)] = 1.0
    """The n-th retry waits a random time of up to this, doubled n - 1 times."""
    backoff_cap_s: Annotated[float, Field(gt=0)] = 60.0
    """Longest wait before a retry. A server that asks for a longer one (`Retry-After`) is asked
    no more in this run."""
    give_up_after: Count = 32
    """The model is asked no more in this run when so many rows in succession get no usable
    answer."""
    max_requests: Count | None = None
    """Most requests of a run, retries included; rows beyond wait for the next run."""
    max_cost: Annotated[float, Field(gt=0)] | None = None
    """Most cost of a run, in the currency of the prices; rows beyond wait for the next run."""
    input_price: Amount = 0.0
    """Price of a million input tokens."""
    output_price: Amount = 0.0
    """Price of a million output tokens."""

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if self.max_cost is not None and self.input_price + self.output_price == 0:
            raise ValueError("max_cost needs input_price and output_price")
        return self


class JudgeRater(Section):
    """A language model rates rows by a rubric; the others get a posterior as with `reference`."""

    type: Literal["judge"] = "judge"
    engine: Annotated[EndpointJudge | EngineJudge, Field(discriminator="type")]
    """The judge; one of two kinds."""
    max_rated: Count | None = None
    """At most this many rows of the pool are judged, drawn by their content's hash; null: all."""
    max_item_tokens: Count = 2048
    """A longer row is judged by its beginning (estimated tokens)."""
    spread_scores: bool = False
    """Ask the judge to use the whole scale (DS2's wording of the rubric)."""


Rater = Annotated[
    ColumnRater | ReferenceRater | JudgeRater,
    Field(discriminator="type"),
    default_type("reference"),
]
