"""What a well-typed entry must also be: consistent with itself and with the engine."""

from collections.abc import Iterator

from mlx_catalog.mismatches import Violation
from mlx_catalog.roles import ModelRole
from mlx_catalog.schema import CatalogEntry, Geometry, Quant, Source


def violations(entry: CatalogEntry) -> Iterator[Violation]:
    """Everything in `entry` that the types alone allow and the catalog doesn't."""
    yield from _parameters(entry)
    yield from _aliases(entry)
    yield from _geometry(entry.geometry, entry.architecture)
    yield from _sources(entry)
    yield from _capabilities(entry)
    yield from _role(entry)
    yield from _quality(entry)


def _parameters(entry: CatalogEntry) -> Iterator[Violation]:
    active = entry.active_params_b
    if active is not None and active > entry.params_b:
        yield Violation(("active_params_b",), f"at most params_b ({entry.params_b})", str(active))
    if "moe" in entry.architecture and active is None:
        yield Violation(("active_params_b",), f"a figure, for {entry.architecture}", "nothing")
    unread = (entry.tower_params_b or 0) + (entry.mtp_params_b or 0)
    drafts = entry.mtp_acceptance
    if drafts is not None and drafts.low > drafts.high:
        expected = f"at most its high ({drafts.high})"
        yield Violation(("mtp_acceptance", "low"), expected, str(drafts.low))
    if unread >= entry.params_b:
        expected = f"less than params_b ({entry.params_b}) with mtp_params_b"
        yield Violation(("tower_params_b",), expected, str(unread))
        return
    yield from _embedding(entry, (entry.params_b - unread) * 1e9)


_NEAR, _TELLING_SHARE = 0.05, 0.12
"""How near a published size is to one that counts the embedding once, and how much of the model
the embedding is, before `params_b` must have counted it twice: other packings save less."""


def _embedding(entry: CatalogEntry, text_params: float) -> Iterator[Violation]:
    """What the embedding says of the parameters of the language model."""
    geometry = entry.geometry
    embedding = geometry.embedding_params
    if embedding is None:
        return
    copies = 2 if geometry.tied_embeddings is False else 1
    held = copies * embedding + geometry.per_layer_embedding_params
    if held >= text_params:
        yield Violation(
            ("geometry", "vocab_size"),
            f"embeddings of less than the {text_params / 1e9:g} x 10^9 parameters",
            f"{held / 1e9:.3g} x 10^9",
        )
    elif geometry.tied_embeddings and embedding > _TELLING_SHARE * text_params:
        for quant, source in entry.sources.items():
            size = None if source.disk_size_estimated else source.disk_size_gb
            once = (entry.loaded_params_b * 1e9 - embedding) / 1e9
            if size and abs(size * 8 / quant.bits_per_weight / once - 1) < _NEAR:
                expected = f"about {once:.3g}, the tied embedding counted once, as {quant} has it"
                yield Violation(("params_b",), expected, str(entry.params_b))


def _aliases(entry: CatalogEntry) -> Iterator[Violation]:
    for index, alias in enumerate(entry.aliases):
        if alias == entry.id:
            yield Violation(("aliases", index), "a name other than the id", repr(alias))
        elif alias in entry.aliases[:index]:
            yield Violation(("aliases", index), "each alias once", f"{alias!r} again")
    for alias in entry.alias_notes:
        if alias not in entry.aliases:
            yield Violation(("alias_notes", alias), "one of aliases", repr(alias))


def _geometry(geometry: Geometry, architecture: str) -> Iterator[Violation]:
    if geometry.sliding_layers and geometry.sliding_window is None:
        yield Violation(
            ("geometry", "sliding_window"), "a window for the sliding layers", "nothing"
        )
    if geometry.mla_rope_dim is not None and geometry.mla_latent_dim is None:
        yield Violation(("geometry", "mla_latent_dim"), "a width with mla_rope_dim", "nothing")
    query_heads, kv_heads = geometry.query_heads, geometry.kv_heads
    if query_heads is not None and kv_heads is not None and query_heads % kv_heads:
        expected = f"a multiple of kv_heads ({kv_heads})"
        yield Violation(("geometry", "query_heads"), expected, str(query_heads))
    recurrent = geometry.recurrent
    if recurrent is None and "hybrid" in architecture:
        yield Violation(("geometry", "recurrent"), f"a state, for {architecture}", "nothing")
    own = (geometry.full_attention_layers or 0) + (geometry.sliding_layers or 0)
    own += geometry.shared_kv_layers or 0
    if recurrent is not None and "parallel" not in architecture:
        own += recurrent.layers or 0
    if own > geometry.layers:
        yield Violation(
            ("geometry", "layers"), f"at least the {own} layers named below", str(geometry.layers)
        )
    experts = geometry.experts
    if experts is not None and experts.active is not None and experts.active > experts.total:
        yield Violation(
            ("geometry", "experts", "active"), f"at most {experts.total}", str(experts.active)
        )


def _sources(entry: CatalogEntry) -> Iterator[Violation]:
    if not entry.sources.items():
        yield Violation(("sources",), "at least one format", "none")
    for quant, source in entry.sources.items():
        yield from _source(entry, quant, source)
        if source.disk_size_estimated:
            yield from _estimated_size(entry, quant, source.disk_size_gb or 0.0)
    texts = [entry.text_params_b(quant) for quant, _ in entry.measured_sources()]
    if texts and max(texts) > _SAME_MODEL * min(texts):
        sizes = [f"{quant} {source.disk_size_gb} GB" for quant, source in entry.measured_sources()]
        expected = "published sizes of one number of parameters, within 5 %"
        yield Violation(("sources",), expected, ", ".join(sizes))


_SAME_MODEL = 1.05
_ESTIMATE_ERROR, _OTHER_FILES_GB = 0.02, 0.05
"""How near an estimated size is to what it is estimated from; tokenizers are beside the weights."""


def _estimated_size(entry: CatalogEntry, quant: Quant, size_gb: float) -> Iterator[Violation]:
    """An estimate follows from the published size of another precision, else from what is loaded.

    That counts a tied embedding once, towers in 16 bits, and no head that MLX drops.
    """
    measured = [each for each, _ in entry.measured_sources()]
    expected = [entry.expected_size_gb(quant, measured_at=each) for each in measured]
    expected = expected or [entry.expected_size_gb(quant)]
    if all(abs(size_gb / each - 1) > _ESTIMATE_ERROR + _OTHER_FILES_GB / each for each in expected):
        of = f"as {measured[0]} is" if measured else "with towers in 16 bits, without dropped heads"
        path = ("sources", quant, "disk_size_gb")
        yield Violation(path, f"about {expected[0]:.2f} GB, {of}", f"{size_gb} GB")


#: How far a published size may be from parameters times bits before one of the two must be wrong.
#: Embeddings kept at more bits make small models larger; MXFP4 and tied embeddings make others
#: smaller.
_SMALLEST, _LARGEST = 0.7, 1.6


def _source(entry: CatalogEntry, quant: Quant, source: Source) -> Iterator[Violation]:
    path = ("sources", quant)
    if (source.hf_repo is None) == (source.convert_from is None):
        both = "neither" if source.hf_repo is None else "both"
        yield Violation(path, "either hf_repo or convert_from", both)
    if source.convert_from is not None and quant != Quant.BF16 and not quant.is_made_here:
        yield Violation(
            (*path, "convert_from"), f"a published {quant}: no conversion makes it", "one"
        )
    size = source.disk_size_gb
    if size is None:
        return
    if source.disk_size_source is None:
        yield Violation((*path, "disk_size_source"), f"where {size} GB comes from", "nothing")
    own_bits = source.bits_per_weight if not source.fp4_experts else None
    bits = own_bits or quant.bits_per_weight
    estimate = entry.params_b * bits / 8
    if not _SMALLEST * estimate <= size <= _LARGEST * estimate:
        expected = f"about {estimate:.1f} GB, {entry.params_b} x 10^9 parameters at {quant}"
        yield Violation((*path, "disk_size_gb"), expected, f"{size} GB")


def _capabilities(entry: CatalogEntry) -> Iterator[Violation]:
    able = entry.capabilities
    if able.tool_calling and not able.tool_call_parser:
        yield Violation(
            ("capabilities", "tool_calling"),
            "false, or a tool_call_parser that reads its calls",
            "true",
        )
    if able.tool_call_parser and not able.tool_calling:
        yield Violation(
            ("capabilities", "tool_call_parser"),
            '"" without tool_calling',
            repr(able.tool_call_parser),
        )
    if able.reasoning_parser and able.thinking is False:
        yield Violation(
            ("capabilities", "reasoning_parser"), '"" without thinking', repr(able.reasoning_parser)
        )


_OF_EMBEDDERS = ("dimensions", "matryoshka", "pooling")


def _role(entry: CatalogEntry) -> Iterator[Violation]:
    """What a model of the entry's role must have, and what it can't have."""
    role, able = entry.role, entry.capabilities
    if entry.max_context_tokens is None and (role.chats or role.reads_only):
        yield Violation(("max_context_tokens",), f"a figure, for the role {role}", "nothing")
    if role is not ModelRole.EMBEDDING:
        for name in _OF_EMBEDDERS:
            value = getattr(entry, name)
            if value is not None:
                yield Violation((name,), f"nothing, for the role {role}", repr(value))
    if role.chats:
        return
    for name in ("tool_calling", "thinking", "vision"):
        if getattr(able, name):
            path = ("capabilities", name)
            yield Violation(path, f"false, for the role {role}", "true")


def _quality(entry: CatalogEntry) -> Iterator[Violation]:
    quality = entry.quality
    if quality is None:
        return
    figures = {
        "overall": quality.overall,
        "coding": quality.coding,
        "reasoning": quality.reasoning,
        "instruction_following": quality.instruction_following,
    }
    for name, figure in figures.items():
        if figure is not None and not quality.source.get(name):
            yield Violation(
                ("quality", "source", name), f"where {name} {figure} comes from", "nothing"
            )
    for name in quality.source:
        if figures.get(name) is None:
            yield Violation(("quality", "source", name), "a figure of that name", "none")
