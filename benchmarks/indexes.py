"""Who takes part in the benchmark of retrieval: indexes of other libraries, and ours.

Enters: vectors `[n, dim]` and a sample of queries, float32.  Leaves: contestants, each built with
all cores and then asked by one thread.  All look for the largest dot product.
"""

import gc
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlplatform.training.runtime import tensorflow
from recsys.models.index import AppIndex, IndexSettings, query_space

Float = NDArray[np.float32]
Found = NDArray[np.integer[Any]]
CORES = os.cpu_count() or 1
# What the libraries' documentation recommends for large sets (hnswlib: M from 12 to 48, and a
# construction list of some hundreds), and the same for the three that build such a graph.
LINKS, CONSTRUCTION = 16, 200
EXTRA = 2  # dimensions that augment a vector; product codes are read in pairs
REORDER = 600  # candidates that others score exactly


class Index(Protocol):
    """A built index.

    search: positions of the k best `[queries, k]`, of `queries [n, dim]`; more effort finds more.
    size_bytes: what it takes in a file.
    """

    def search(self, queries: Float, k: int, effort: int) -> Found: ...

    def size_bytes(self) -> int: ...


@dataclass(frozen=True)
class Contestant:
    """How an index is made of vectors and a sample of queries.

    needs: the module of its library.
    efforts: at which it is measured.
    how: it is built, and what its effort is, for the reader.
    """

    needs: str
    efforts: Sequence[int]
    how: str
    build: Callable[[Float, Float], Index]

    @property
    def installed(self) -> bool:
        return find_spec(self.needs) is not None

    def load_library(self) -> None:
        tensorflow(threads=1)  # first, since it configures what other libraries import
        import_module(self.needs)


OURS = "ours"
LAYER, LAYER_SET_WELL = "tfrs ScaNN, defaults", "tfrs ScaNN, set well"
# Which are also given vectors turned as ours are: of three libraries that build graphs, one.
TURNED = (LAYER_SET_WELL, "faiss", "hnswlib")


def contestants(settings: IndexSettings) -> dict[str, Contestant]:
    """By name, ours first; `settings` are our index's, and other trees get as many leaves."""
    leaves = settings.leaves
    graph = f"M {LINKS}, construction list {CONSTRUCTION}; effort: length of the list"
    layer_set_well = {"num_leaves": leaves, "dimensions_per_block": 1}
    layer_set_well["num_reordering_candidates"] = REORDER
    factory, augmented = (f"IVF{leaves},PQ{n}x4fsr,RFlat" for n in (64, 64 + EXTRA))
    lists = (100, 150, 220, 320, 480, 700, 1000, 1500)
    shares = (0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.2)
    some = sorted({max(1, round(leaves * share)) for share in shares})
    every = {
        OURS: Contestant(
            "scann", some, f"{settings}; effort: leaves", lambda v, q: Ours(v, q, settings)
        ),
        LAYER: Contestant(
            "tensorflow_recommenders", (2, 5, 10, 20, 40, 100), "ScaNN(); effort: leaves",
            lambda v, q: Layer(v),
        ),
        LAYER_SET_WELL: Contestant(
            "tensorflow_recommenders", some, f"{layer_set_well}; effort: leaves",
            lambda v, q: Layer(v, **layer_set_well),
        ),
        "faiss": Contestant(
            "faiss", some, f"{factory}; effort: nprobe", lambda v, q: Faiss(v, factory, leaves)
        ),
        "faiss, augmented": Contestant(
            "faiss", some, f"{augmented}, distances of augmented vectors; effort: nprobe",
            lambda v, q: Augmented(v, augmented, leaves),
        ),
        "hnswlib": Contestant("hnswlib", lists, graph, lambda v, q: Hnswlib(v)),
        "usearch": Contestant("usearch", lists, graph, lambda v, q: Usearch(v)),
        "voyager": Contestant("voyager", lists, graph, lambda v, q: Voyager(v)),
    }  # fmt: skip
    return every | {f"{name}, turned": _turned(every[name]) for name in TURNED}


def _turned(contestant: Contestant) -> Contestant:
    """The same library, given what our index gives to its own."""

    def build(vectors: Float, queries: Float) -> Index:
        for_queries, for_apps = query_space(vectors, queries, vectors.shape[1])
        return Turned(contestant.build(vectors @ for_apps, queries @ for_queries), for_queries)

    return replace(contestant, build=build, how=f"{contestant.how}; vectors turned as ours are")


@dataclass(frozen=True)
class Turned:
    index: Index
    space: Float

    def search(self, queries: Float, k: int, effort: int) -> Found:
        return self.index.search(queries @ self.space, k, effort)

    def size_bytes(self) -> int:
        return self.index.size_bytes()


class Ours:
    def __init__(self, vectors: Float, queries: Float, settings: IndexSettings) -> None:
        self.index = AppIndex.build(vectors, settings, 100, queries)

    def search(self, queries: Float, k: int, effort: int) -> Found:
        return self.index.search(queries, k, effort)[0]

    def size_bytes(self) -> int:
        return _written(self.index.save)


class Layer:
    """The ScaNN layer of tensorflow-recommenders, its leaves searched being set at every call."""

    def __init__(self, vectors: Float, **given: int) -> None:
        self.tf = tensorflow(threads=1)
        import tensorflow_recommenders as tfrs

        self.layer = tfrs.layers.factorized_top_k.ScaNN(**given)
        self.layer.index(self.tf.constant(vectors))
        from scann.scann_ops.py import scann_ops

        self.searcher = scann_ops.searcher_from_module(self.layer._serialized_searcher)
        self._search = self.tf.function(self._found, reduce_retracing=True)

    def search(self, queries: Float, k: int, effort: int) -> Found:
        found: Found = self._search(queries, self.tf.constant(k), self.tf.constant(effort)).numpy()
        return found

    def _found(self, queries: Any, k: Any, leaves: Any) -> Any:
        return self.searcher.search_batched(
            queries, final_num_neighbors=k, leaves_to_search=leaves
        ).indices

    def size_bytes(self) -> int:
        return _written(
            lambda folder: self.tf.saved_model.save(
                self.layer._serialized_searcher,
                str(folder / "layer"),
                options=self.tf.saved_model.SaveOptions(namespace_whitelist=["Scann"]),
            )
        )


class Hnswlib:
    def __init__(self, vectors: Float) -> None:
        import hnswlib

        self.index = hnswlib.Index("ip", vectors.shape[1])
        self.index.init_index(len(vectors), M=LINKS, ef_construction=CONSTRUCTION)
        self.index.add_items(vectors, num_threads=CORES)

    def search(self, queries: Float, k: int, effort: int) -> Found:
        self.index.set_ef(max(effort, k))
        found: Found = self.index.knn_query(queries, k, num_threads=1)[0]
        return found

    def size_bytes(self) -> int:
        return _written(lambda folder: self.index.save_index(str(folder / "index")))


class Faiss:
    """Inverted lists of 4-bit product codes that are scanned by shuffles, refined exactly."""

    def __init__(
        self, vectors: Float, factory: str, leaves: int, metric: str = "METRIC_INNER_PRODUCT"
    ) -> None:
        import faiss

        # Its stubs do not know what its parameters are called.
        self.faiss: Any = faiss
        faiss.omp_set_num_threads(CORES)
        self.index = faiss.index_factory(vectors.shape[1], factory, getattr(faiss, metric))
        some = np.random.default_rng(0).permutation(len(vectors))[: 100 * leaves]
        self.index.train(vectors[some])
        self.index.add(vectors)
        faiss.omp_set_num_threads(1)

    def search(self, queries: Float, k: int, effort: int) -> Found:
        parameters = self.faiss.IndexRefineSearchParameters(
            k_factor=REORDER / k, base_index_params=self.faiss.SearchParametersIVF(nprobe=effort)
        )
        found: Found = self.index.search(queries, k, params=parameters)[1]
        return found

    def size_bytes(self) -> int:
        return _written(lambda folder: self.faiss.write_index(self.index, str(folder / "index")))


class Augmented:
    """faiss by distance, in which its lists are made: with one more coordinate all vectors are as
    long as the longest, and so the nearest to a query has the largest product with it (Bachrach et
    al., Speeding Up the Xbox Recommender System, RecSys 2014)."""

    def __init__(self, vectors: Float, factory: str, leaves: int) -> None:
        squares = np.einsum("nd,nd->n", vectors, vectors)
        extra = np.zeros((len(vectors), EXTRA), np.float32)
        extra[:, 0] = np.sqrt(squares.max() - squares)
        self.index = Faiss(np.hstack([vectors, extra]), factory, leaves, "METRIC_L2")

    def search(self, queries: Float, k: int, effort: int) -> Found:
        none = np.zeros((len(queries), EXTRA), np.float32)
        return self.index.search(np.hstack([queries, none]), k, effort)

    def size_bytes(self) -> int:
        return self.index.size_bytes()


class Usearch:
    def __init__(self, vectors: Float) -> None:
        from usearch.index import Index as Graph

        self.index = Graph(
            ndim=vectors.shape[1], metric="ip", dtype="f32",
            connectivity=LINKS, expansion_add=CONSTRUCTION,
        )  # fmt: skip
        self.index.add(np.arange(len(vectors)), vectors, threads=CORES)

    def search(self, queries: Float, k: int, effort: int) -> Found:
        self.index.expansion_search = effort
        found: Found = self.index.search(queries, k, threads=1).keys
        return found

    def size_bytes(self) -> int:
        return int(self.index.serialized_length)


class Voyager:
    def __init__(self, vectors: Float) -> None:
        import voyager

        self.index = voyager.Index(
            voyager.Space.InnerProduct, vectors.shape[1], M=LINKS, ef_construction=CONSTRUCTION
        )
        self.index.add_items(vectors, num_threads=CORES)

    def search(self, queries: Float, k: int, effort: int) -> Found:
        found: Found = self.index.query(queries, k, num_threads=1, query_ef=max(effort, k))[0]
        return found

    def size_bytes(self) -> int:
        return _written(lambda folder: self.index.save(str(folder / "index")))


def _written(write: Callable[[Path], Any]) -> int:
    """Bytes that `write` puts into a directory."""
    gc.collect()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
