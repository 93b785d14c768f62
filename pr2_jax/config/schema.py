"""The fields of every config section, each with its unit and its source.

Marks as in docs/method.md: [paper] stated by PR2, [QIN] by its sibling paper, [lit] by another published system,
[ours] chosen here. "0 = derived" means that the value follows from counts of the log, so that one config serves logs
of every size. Fields that all models share are in `training_config.py`, the simulated platform is in
`world_config.py`; `loader.py` turns files and overrides into a `Config`.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Literal

from pr2_jax.config.checks import (
    Dropout,
    Positive,
    PositiveShare,
    Section,
    Share,
    Size,
    check_choices,
    check_heads,
    check_named,
    check_order,
    check_weights,
    require,
)
from pr2_jax.config.data_config import ColumnsConfig, FilesConfig
from pr2_jax.config.training_config import Compute, MeshConfig, OptimConfig, TablesConfig
from pr2_jax.config.world_config import WorldConfig

Label = Literal["click", "long_play", "like", "follow", "forward"]
LABELS = typing.get_args(Label)
"""Binary outcomes of a view or a result, in the order of the last axis of `[..., Y]` arrays."""
PREFERENCE_LABELS = LABELS[:3]
"""The heads of the preference model. Their logits are features of the ranker."""

Source = Literal["kuaisar", "short_video_world"]
Threshold = Literal["quantile", "adaptive"]
SOURCES, THRESHOLDS = typing.get_args(Source), typing.get_args(Threshold)
CHANNELS = ("bm25", "dr", "qrcf", "pdr")
INPUTS = ("relevance", "video", "links", "habits", "preference")
INPUTS_RENAMED = {"taste": "preference"}


@dataclasses.dataclass(frozen=True)
class DataConfig(Section):
    """Reading the log."""

    source: Source = "kuaisar"  # "kuaisar" (needs --input) or "short_video_world" (simulated)
    max_bad_share: Share = 0.01  # share of rows of a table that may be quarantined before ingest fails
    query_tokens: Size = 8  # Q, longer queries are cut
    caption_tokens: Size = 24  # C, longer captions are cut
    long_play_quantile: Share = 0.7  # [lit: D2Q] long play = above this quantile of its duration bucket
    duration_buckets: Size = 10
    files: FilesConfig = FilesConfig()  # what a log of one's own calls its files
    columns: ColumnsConfig = ColumnsConfig()  # and their columns


@dataclasses.dataclass(frozen=True)
class Head(Section):
    """A prediction head: its name, the label that it learns, and the weight of its loss."""

    name: str = "click"  # in tables, files and the model's parameters
    label: Literal[Label, ""] = ""  # "" = the one of that name
    weight: float = 1.0  # 0 = kept, but not learnt

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.name if self.label == "" else self.label)
        super().__post_init__()
        require(self.name.isidentifier(), self, f"name = {self.name!r}, expected letters, digits and _")


@dataclasses.dataclass(frozen=True)
class ContentConfig(Section):
    """Two towers into one frozen space (docs/method.md, Content towers)."""

    width: Size = 64  # D of the shared space
    hidden: Size = 128
    temperature: Positive = 0.07
    uniform_negatives: int = 512
    caption_share: Share = 0.5  # share of a batch's rows whose query is a few words of the video's own caption
    modality_dropout: Dropout = 0.2  # share of captions hidden from the video tower where brought vectors exist
    dropout: Dropout = 0.1
    compute: Compute = "float32"  # what training computes in between float32 parameters and losses
    tables: TablesConfig = TablesConfig()
    optim: OptimConfig = OptimConfig(epochs=24.0, table_learning_rate=1e-2)


@dataclasses.dataclass(frozen=True)
class PreferenceConfig(Section):
    """Preference embeddings learnt from feed views (models/preference.py) [ours]. A batch counts events."""

    width: Size = 16
    history: Size = 1_000  # most recent events of a person that are pooled, whatever their outcome
    pseudo_events: Positive = 10.0  # kappa: with fewer events than this the prior outweighs the person
    id_dropout: Dropout = 0.9
    fit_prior: Positive = 4.0  # initial precision of people's axes, authors and videos; the fit learns it
    fit_sweeps: int = 5  # rounds of the fit; 0 = only people are fitted, to the vectors as trained
    fit_ridge: Positive = 20.0  # ridge penalty of standardised attributes, in videos
    click_weight: float = 1.0
    long_play_weight: float = 0.5
    like_weight: float = 0.2
    tables: TablesConfig = TablesConfig()
    optim: OptimConfig = OptimConfig(batch=8_192, epochs=20.0, learning_rate=1e-2, table_learning_rate=1e-2)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weights(self, "click_weight", "long_play_weight", "like_weight")


@dataclasses.dataclass(frozen=True)
class PdrConfig(Section):
    """Personalised dense retrieval (docs/method.md, PDR)."""

    width: Size = 64
    hidden: Size = 128
    heads: Size = 4
    history: Size = 100  # most recent engaged events attended over
    temperature: Positive = 0.07
    uniform_negatives: int = 1_024
    hard_negatives: int = 2  # per row, from an earlier checkpoint's ranks
    hard_rank_from: Size = 100  # [lit: Facebook EBR]
    hard_rank_to: int = 500
    hard_searches: Size = 20_000  # training searches mined at most, an even sample; the others have none
    hard_start: Share = 0.5  # share of the steps after which hard negatives are mined and used
    id_dropout: Dropout = 0.15
    dropout: Dropout = 0.1
    use_history: bool = True  # past events: attended over by the query, and their mean
    use_profile: bool = True
    use_preference: bool = True  # the person's preference embedding
    log_q: bool = True  # corrects sampled negatives for how often each is drawn
    relevance_weight: float = 0.5
    feedback_heads: tuple[Head, ...] = (Head("click"), Head("long_play", weight=0.5), Head("like", weight=0.2))
    feed_share: Share = 0.5  # share of rows of a batch that are engaged feed views (empty query)
    compute: Compute = "float32"  # what training computes in between float32 parameters and losses
    tables: TablesConfig = TablesConfig()
    optim: OptimConfig = OptimConfig(epochs=12.0, table_optimizer="row_adagrad", table_learning_rate=5e-2)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self)
        check_named(self, "feedback_heads", Head)
        check_weights(self, "relevance_weight", heads="feedback_heads")
        check_order(self, "hard_rank_from", "hard_rank_to")


@dataclasses.dataclass(frozen=True)
class QinConfig(Section):
    """Query-dominant interest network (docs/method.md, QIN). `personal=False` is the base ranker."""

    personal: bool = True
    slate: int = 10  # S, results of a training slate; longer result lists are cut into several
    width: Size = 32
    heads: Size = 4
    history: Size = 500  # H
    keep_query: Size = 100  # K1, GSU step 1
    keep_video: Size = 30  # K2, GSU step 2
    realtime: int = 30  # R; 0 = without the real-time part
    query_filter: bool = True  # GSU step 1; without it the latest K1 stay
    video_filter: bool = True  # GSU step 2; without it every candidate sees all K1
    esu: bool = True  # exact attention over what the GSU kept; without it their mean
    fused_attention: bool = True  # [QIN] separate attention over ids and attributes; without it over their sums
    engagement_gate: bool = True  # [QIN] weighs the two attentions; without it equally
    inputs: tuple[str, ...] = INPUTS  # groups of features; base: the first two
    experts: Size = 4
    expert_width: Size = 64
    gate_dropout: Dropout = 0.1  # [lit: HoME]
    dropout: Dropout = 0.1
    id_dropout: Dropout = 0.1
    position_dropout: Dropout = 0.2
    feed_share: Share = 0.3  # share of a batch's slates made of feed views
    sampled_negatives: int = 24  # retrieved but unshown videos added to each training slate
    negative_queries: Size = 20_000  # queries retrieved for them at most; slates of the others have none
    prediction_heads: tuple[Head, ...] = (Head("click"), Head("long_play", weight=0.3), Head("like", weight=0.2))
    listwise_weight: float = 1.0  # softmax over a slate's clicked results, beside the pointwise losses
    compute: Compute = "float32"  # what training computes in between float32 parameters and losses
    tables: TablesConfig = TablesConfig()
    optim: OptimConfig = OptimConfig(
        batch=64, epochs=3.0, learning_rate=1.5e-3, table_optimizer="row_adagrad", table_learning_rate=5e-3
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self)
        check_named(self, "prediction_heads", Head)
        first = self.prediction_heads[0]
        told = f"prediction_heads begins with the label {first.label}, expected click: results are ranked by it"
        require(first.label == "click", self, told)
        check_weights(self, "listwise_weight", heads="prediction_heads")
        check_order(self, "keep_video", "keep_query", "history")
        object.__setattr__(self, "inputs", tuple(INPUTS_RENAMED.get(name, name) for name in self.inputs))
        check_choices(self, "inputs", INPUTS)


@dataclasses.dataclass(frozen=True)
class QrcfConfig(Section):
    """Query-relevant collaborative filtering (docs/method.md, QRCF)."""

    history: Size = 1_000  # most recent engaged events filtered
    k: Size = 50  # seeds kept at most
    threshold: Threshold = "quantile"  # of a seed's cosine: one epsilon, or "adaptive": one a query [lit: pEBR]
    epsilon_quantile: Share = 0.6  # epsilon = this quantile of cos(query, past view) on the training window
    adaptive_quantile: Share = 0.95  # adaptive: this quantile of cos(query, video) over the videos of a sample
    adaptive_sample: Size = 4_096  # videos in it, of those engaged with before the validation day
    gamma: float = 2.0
    neighbours: int = 200  # M at most; fewer where [V, M] would not fit into memory
    swing_power: float = 0.5  # [ours] exponent of the degree-normalised Swing similarity; below 1 lifts weak links
    similarity: Literal["swing", "cosine"] = "swing"
    swing_alpha: float = 1.0  # [lit: Alibaba]
    swing_user_alpha: float = 5.0
    swing_user_beta: float = 0.5
    max_items_per_user: Size = 1_000
    max_users_per_item: Size = 1_000
    shrinkage: float = 10.0  # of the cosine
    age_half_life_days: Positive = 14.0
    content_fallback: int = 20  # neighbours from content for videos nobody co-clicked

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order(self, "k", "history")
        if self.neighbours:
            check_order(self, "content_fallback", "neighbours")


@dataclasses.dataclass(frozen=True)
class RetrievalConfig(Section):
    """Channels, their depth, and the ScaNN index."""

    channels: tuple[str, ...] = CHANNELS  # merged by pr2; base merges bm25 and dr
    depth: Size = 1_000  # results per channel
    ann_min_rows: int = 5_000  # below this the search is exact
    ann_recall_at: Size = 100
    ann_leaves: int = 0  # 0 = derived: 2 * sqrt(V)
    ann_search_share: PositiveShare = 0.15  # share of leaves searched
    ann_reorder: int = 0  # least number rescored exactly; 0 = derived: 8 * results asked for
    bm25_k1: Positive = 1.5  # [lit: Lucene's form of BM25, defaults of the library bm25s]
    bm25_b: Share = 0.75
    qrcf: QrcfConfig = QrcfConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order(self, "ann_recall_at", "depth")
        check_choices(self, "channels", CHANNELS)


@dataclasses.dataclass(frozen=True)
class SearchConfig(Section):
    """Serving a request."""

    candidates: Size = 256  # best merged candidates that the ranker orders
    least_events: int = 5  # with fewer past events, base ranks a person's candidates
    clicked: Literal["auto", "show", "withhold"] = "auto"  # videos clicked before; auto = as the log has it


@dataclasses.dataclass(frozen=True)
class ScoresConfig(Section):
    """Calibration and score fusion, fitted on the validation day (docs/method.md, Calibration)."""

    calibration: Literal["auto", "platt", "isotonic", "query"] = "auto"  # auto = chosen on held-out users
    floor_tolerance: float = 0.1  # [ours] standard errors of NDCG@10 and recall@100 that a floor may cost; 0 = none


@dataclasses.dataclass(frozen=True)
class EvaluationConfig(Section):
    """Offline evaluation on the test day."""

    bootstrap: Size = 1_000
    probe_sessions: int = 32  # sessions on which `pr2 evaluate` repeats every feature with the future removed
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Config(Section):
    """The config of a work directory."""

    name: str = "kuaisar"
    mesh: MeshConfig = MeshConfig()
    data: DataConfig = DataConfig()
    world: WorldConfig = WorldConfig()
    content: ContentConfig = ContentConfig()
    preference: PreferenceConfig = PreferenceConfig()
    pdr: PdrConfig = PdrConfig()
    qin: QinConfig = QinConfig()
    base: QinConfig = QinConfig(personal=False)
    retrieval: RetrievalConfig = RetrievalConfig()
    search: SearchConfig = SearchConfig()
    scores: ScoresConfig = ScoresConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        wanted, depth = self.search.candidates, self.retrieval.depth
        told = f"search.candidates = {wanted} is above retrieval.depth = {depth}; lower it or raise depth"
        require(wanted <= depth, self, told)
        drawn = self.qin.sampled_negatives
        told = f"qin.sampled_negatives = {drawn} is above search.candidates = {wanted}, their source"
        require(drawn <= wanted, self, f"{told}; lower it or raise candidates")
        for name in ("slate", "sampled_negatives", "negative_queries"):
            one, other = getattr(self.qin, name), getattr(self.base, name)
            require(one == other, self, f"qin.{name} = {one}, base.{name} = {other}: both train on one set; set both")
        ours, theirs = (
            ", ".join(f"{head.name} ({head.label})" for head in one.prediction_heads) for one in (self.qin, self.base)
        )
        told = (
            f"qin.prediction_heads = {ours}, base.prediction_heads = {theirs}: results of both are compared; set both"
        )
        require(ours == theirs, self, told)
        require(not self.base.personal, self, "base.personal = True, expected False: it is the ranker to compare with")

    @property
    def split_batches(self) -> dict[str, int]:
        """Sizes of the batches that are split over devices, by the dotted path of their field."""
        models = {"content": self.content, "pdr": self.pdr, "qin": self.qin, "base": self.base}
        return {f"{name}.optim.batch": model.optim.batch for name, model in models.items()}
