"""Every knob of the project, once, with its unit and where it comes from.

Marks as in docs/method.md: [paper] stated by PR2, [QIN] by its sibling paper, [lit] by another published system,
[ours] chosen here. A value of 0 where the text says "0 = derived" is computed from counts of the log at hand, so that
one config serves a log of 1e5 rows and one of 1e7. What every trained model shares is in `config/training_config.py`,
the simulated platform in `config/world_config.py`; how files and overrides become a `Config` is in `config/loader.py`.
"""

from __future__ import annotations

import dataclasses

from pr2_jax.config.checks import (
    check_choice,
    check_choices,
    check_heads,
    check_named,
    check_order,
    check_values,
    check_weights,
    require,
)
from pr2_jax.config.data_config import ColumnsConfig, FilesConfig
from pr2_jax.config.training_config import COMPUTE, MeshConfig, OptimConfig, TablesConfig
from pr2_jax.config.world_config import WorldConfig

LABELS = ("click", "long_play", "like", "follow", "forward")
"""What a log can tell of a view or a result, yes or no, in the order of the last axis of `[..., Y]` arrays."""
PREFERENCE_LABELS = LABELS[:3]
"""What the preference space foretells: heads of a fixed model, whose logits are columns of the ranker's features."""

SOURCES = ("kuaisar", "short_video_world")
THRESHOLDS = ("quantile", "adaptive")
SIMILARITIES = ("swing", "cosine")
CHANNELS = ("bm25", "dr", "qrcf", "pdr")
CALIBRATIONS = ("auto", "platt", "isotonic", "query")
INPUTS = ("relevance", "video", "links", "habits", "preference")
INPUTS_RENAMED = {"taste": "preference"}
CLICKED = ("auto", "show", "withhold")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Reading the log."""

    source: str = "kuaisar"  # "kuaisar" (needs --input) or "short_video_world" (simulated)
    max_bad_share: float = 0.01  # share of rows of a table that may be quarantined before ingest fails
    query_tokens: int = 8  # Q, longer queries are cut
    caption_tokens: int = 24  # C, longer captions are cut
    long_play_quantile: float = 0.7  # [lit: D2Q] long play = above this quantile of its duration bucket
    duration_buckets: int = 10
    files: FilesConfig = FilesConfig()  # what a log of one's own calls its files
    columns: ColumnsConfig = ColumnsConfig()  # and their columns

    def __post_init__(self) -> None:
        shares = ("max_bad_share", "long_play_quantile")
        check_values(self, positive=("query_tokens", "caption_tokens", "duration_buckets"), shares=shares)
        check_choice(self, "source", SOURCES)


@dataclasses.dataclass(frozen=True)
class Head:
    """A label of the log that a model learns to foretell, under a name of its own, and the weight of its loss."""

    name: str = "click"  # in tables, files and the model's parameters
    label: str = ""  # one of types.LABELS; "" = the one of that name
    weight: float = 1.0  # 0 = kept, but not learnt

    def __post_init__(self) -> None:
        check_values(self)
        object.__setattr__(self, "label", self.label or self.name)
        check_choice(self, "label", LABELS)
        require(self.name.isidentifier(), self, f"name = {self.name!r}, expected letters, digits and _")


@dataclasses.dataclass(frozen=True)
class ContentConfig:
    """Two towers into one frozen space (docs/method.md, Content towers)."""

    width: int = 64  # D of the shared space
    hidden: int = 128
    temperature: float = 0.07
    uniform_negatives: int = 512
    caption_share: float = 0.5  # share of a batch's rows whose query is a few words of the video's own caption
    modality_dropout: float = 0.2  # share of captions hidden from the video tower where brought vectors exist
    dropout: float = 0.1
    compute: str = "float32"  # or "bfloat16": what training computes in between float32 parameters and losses
    tables: TablesConfig = TablesConfig()
    optim: OptimConfig = OptimConfig(epochs=24.0, table_learning_rate=1e-2)

    def __post_init__(self) -> None:
        dropouts = ("modality_dropout", "dropout")
        check_values(self, ("width", "hidden", "temperature"), shares=("caption_share",), dropouts=dropouts)
        check_choice(self, "compute", COMPUTE)


@dataclasses.dataclass(frozen=True)
class PreferenceConfig:
    """The preference space, learnt from feed views (models/preference.py) [ours]. A batch is a number of events."""

    width: int = 16
    history: int = 1_000  # most recent events of a person, whatever came of them, that are pooled
    pseudo_events: float = 10.0  # kappa: with fewer events than this a person is mostly nobody in particular
    id_dropout: float = 0.9
    fit_prior: float = 4.0  # precision first assumed of people's axes, authors and videos, before the fit learns it
    fit_sweeps: int = 5  # rounds of that fit; 0 = people alone, against the vectors as trained
    fit_ridge: float = 20.0  # answered videos that a standardised attribute has to earn before it counts
    click_weight: float = 1.0
    long_play_weight: float = 0.5
    like_weight: float = 0.2
    tables: TablesConfig = TablesConfig()
    optim: OptimConfig = OptimConfig(batch=8_192, epochs=20.0, learning_rate=1e-2, table_learning_rate=1e-2)

    def __post_init__(self) -> None:
        positive = ("width", "history", "pseudo_events", "fit_prior", "fit_ridge")
        check_values(self, positive, dropouts=("id_dropout",))
        check_weights(self, "click_weight", "long_play_weight", "like_weight")


@dataclasses.dataclass(frozen=True)
class PdrConfig:
    """Personalised dense retrieval (docs/method.md, PDR)."""

    width: int = 64
    hidden: int = 128
    heads: int = 4
    history: int = 100  # most recent engaged events attended over
    temperature: float = 0.07
    uniform_negatives: int = 1_024
    hard_negatives: int = 2  # per row, from an earlier checkpoint's ranks
    hard_rank_from: int = 100  # [lit: Facebook EBR]
    hard_rank_to: int = 500
    hard_start: float = 0.5  # share of the steps after which hard negatives are mined and used
    id_dropout: float = 0.15
    dropout: float = 0.1
    use_history: bool = True  # behaviours: attended over by the query, and their mean
    use_profile: bool = True
    use_preference: bool = True  # the person in the preference space
    log_q: bool = True  # corrects sampled negatives for how often each is drawn
    relevance_weight: float = 0.5
    feedback_heads: tuple[Head, ...] = (Head("click"), Head("long_play", weight=0.5), Head("like", weight=0.2))
    feed_share: float = 0.5  # share of rows of a batch that are engaged feed views (empty query)
    compute: str = "float32"  # or "bfloat16": what training computes in between float32 parameters and losses
    tables: TablesConfig = TablesConfig()
    optim: OptimConfig = OptimConfig(epochs=12.0, table_optimizer="row_adagrad", table_learning_rate=5e-2)

    def __post_init__(self) -> None:
        positive = ("width", "hidden", "heads", "history", "temperature", "hard_rank_from")
        check_values(self, positive, shares=("feed_share", "hard_start"), dropouts=("id_dropout", "dropout"))
        check_choice(self, "compute", COMPUTE)
        check_heads(self)
        check_named(self, "feedback_heads", Head)
        check_weights(self, "relevance_weight", heads="feedback_heads")
        check_order(self, "hard_rank_from", "hard_rank_to")


@dataclasses.dataclass(frozen=True)
class QinConfig:
    """Query-dominant interest network (docs/method.md, QIN). `personal=False` is the base ranker."""

    personal: bool = True
    slate: int = 10  # S, results of a training slate; longer result lists are cut into several
    width: int = 32
    heads: int = 4
    history: int = 500  # H
    keep_query: int = 100  # K1, GSU step 1
    keep_video: int = 30  # K2, GSU step 2
    realtime: int = 30  # R; 0 = without the real-time part
    query_filter: bool = True  # GSU step 1; without it the latest K1 stay
    video_filter: bool = True  # GSU step 2; without it every candidate sees all K1
    esu: bool = True  # exact attention over what the GSU kept; without it their mean
    fused_attention: bool = True  # [QIN] ids and attributes attend apart; without it their sums attend
    engagement_gate: bool = True  # [QIN] which of the two to trust; without it both alike
    inputs: tuple[str, ...] = INPUTS  # groups of features; base: the first two
    experts: int = 4
    expert_width: int = 64
    gate_dropout: float = 0.1  # [lit: HoME]
    dropout: float = 0.1
    id_dropout: float = 0.1
    position_dropout: float = 0.2
    feed_share: float = 0.3  # share of a batch's slates that are made of feed views
    sampled_negatives: int = 24  # retrieved but unshown videos added to each training slate
    prediction_heads: tuple[Head, ...] = (Head("click"), Head("long_play", weight=0.3), Head("like", weight=0.2))
    listwise_weight: float = 1.0  # softmax over a slate's clicked results, beside the pointwise losses
    compute: str = "float32"  # or "bfloat16": what training computes in between float32 parameters and losses
    tables: TablesConfig = TablesConfig()
    optim: OptimConfig = OptimConfig(
        batch=64, epochs=3.0, learning_rate=1.5e-3, table_optimizer="row_adagrad", table_learning_rate=5e-3
    )

    def __post_init__(self) -> None:
        sizes = ("width", "heads", "history", "keep_query", "keep_video", "experts", "expert_width")
        dropouts = ("gate_dropout", "dropout", "id_dropout", "position_dropout")
        check_values(self, positive=sizes, shares=("feed_share",), dropouts=dropouts)
        check_choice(self, "compute", COMPUTE)
        check_heads(self)
        check_named(self, "prediction_heads", Head)
        first = self.prediction_heads[0]
        told = f"prediction_heads begins with the label {first.label}, expected click: results are ranked by it"
        require(first.label == "click", self, told)
        check_weights(self, "listwise_weight", heads="prediction_heads")
        check_order(self, "keep_video", "keep_query", "history")
        renamed = tuple(INPUTS_RENAMED.get(name, name) for name in self.inputs)
        object.__setattr__(self, "inputs", renamed)
        check_choices(self, "inputs", INPUTS)


@dataclasses.dataclass(frozen=True)
class QrcfConfig:
    """Query-relevant collaborative filtering (docs/method.md, QRCF)."""

    history: int = 1_000  # most recent engaged events filtered
    k: int = 50  # seeds kept at most
    threshold: str = "quantile"  # the least cosine of a seed: one epsilon, or "adaptive", one a query [lit: pEBR]
    epsilon_quantile: float = 0.6  # epsilon = this quantile of cos(query, past view) on the training window
    adaptive_quantile: float = 0.95  # adaptive: this quantile of cos(query, video) over the videos of a sample
    adaptive_sample: int = 4_096  # videos in it, of those engaged with before the validation day
    gamma: float = 2.0
    neighbours: int = 200  # M at most; fewer where [V, M] would outgrow memory
    swing_power: float = 0.5  # [ours] exponent of the degree-normalised Swing similarity; below 1 lifts weak links
    similarity: str = "swing"  # or "cosine"
    swing_alpha: float = 1.0  # [lit: Alibaba]
    swing_user_alpha: float = 5.0
    swing_user_beta: float = 0.5
    max_items_per_user: int = 1_000
    max_users_per_item: int = 1_000
    shrinkage: float = 10.0  # of the cosine
    age_half_life_days: float = 14.0
    content_fallback: int = 20  # neighbours from content for videos nobody co-clicked

    def __post_init__(self) -> None:
        sizes = ("history", "k", "adaptive_sample", "max_items_per_user", "max_users_per_item", "age_half_life_days")
        check_values(self, positive=sizes, shares=("epsilon_quantile", "adaptive_quantile"))
        check_choice(self, "threshold", THRESHOLDS)
        check_choice(self, "similarity", SIMILARITIES)
        check_order(self, "k", "history")
        if self.neighbours:
            check_order(self, "content_fallback", "neighbours")


@dataclasses.dataclass(frozen=True)
class RetrievalConfig:
    """Channels, their depth, and the ScaNN index."""

    channels: tuple[str, ...] = CHANNELS  # that pr2 merges; base merges bm25 and dr
    depth: int = 1_000  # results per channel
    ann_min_rows: int = 5_000  # below this the index is exact: ScaNN's partitions gain nothing
    ann_recall_at: int = 100
    ann_leaves: int = 0  # 0 = derived: 2 * sqrt(V)
    ann_search_share: float = 0.15  # share of leaves searched
    ann_reorder: int = 0  # least number rescored exactly; 0 = derived: 8 * results asked for
    bm25_k1: float = 1.5  # [lit: Lucene's form of BM25, bm25s defaults]
    bm25_b: float = 0.75
    qrcf: QrcfConfig = QrcfConfig()

    def __post_init__(self) -> None:
        positive = ("depth", "ann_recall_at", "ann_search_share", "bm25_k1")
        check_values(self, positive, shares=("ann_search_share", "bm25_b"))
        check_order(self, "ann_recall_at", "depth")
        check_choices(self, "channels", CHANNELS)


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """Answering."""

    candidates: int = 256  # best merged candidates that the ranker orders
    least_events: int = 5  # people with fewer past events get the base ranker's order of the same candidates
    clicked: str = "auto"  # may be found again what the person clicked before? "show", "withhold", or as the log says

    def __post_init__(self) -> None:
        check_values(self, positive=("candidates",))
        check_choice(self, "clicked", CLICKED)


@dataclasses.dataclass(frozen=True)
class ScoresConfig:
    """From the ranker's logits to one score, on the validation day (docs/method.md, Calibration)."""

    calibration: str = "auto"  # or one of "platt", "isotonic", "query" without competition on held-out users
    floor_tolerance: float = 0.1  # [ours] standard errors of NDCG@10 and recall@100 that a floor may cost; 0 = none

    def __post_init__(self) -> None:
        check_values(self)
        check_choice(self, "calibration", CALIBRATIONS)


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Offline evaluation. Weights are chosen on the validation day, numbers are reported on the test day."""

    bootstrap: int = 1_000
    probe_sessions: int = 32  # sessions on which `pr2 evaluate` repeats every feature with the future removed
    seed: int = 0

    def __post_init__(self) -> None:
        check_values(self, positive=("bootstrap",))


@dataclasses.dataclass(frozen=True)
class Config:
    """One run, whole."""

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
        check_values(self)
        wanted, depth = self.search.candidates, self.retrieval.depth
        require(
            wanted <= depth,
            self,
            f"search.candidates = {wanted} is above retrieval.depth = {depth}; lower it or raise depth",
        )
        drawn = self.qin.sampled_negatives
        require(
            drawn <= wanted,
            self,
            f"qin.sampled_negatives = {drawn} is above search.candidates = {wanted}, their source; "
            "lower it or raise candidates",
        )
        for name in ("slate", "sampled_negatives"):
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
