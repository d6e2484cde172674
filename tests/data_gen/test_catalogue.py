"""The catalogue against the real store's published figures, and its own promises."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from data_gen import marginals
from data_gen.catalogue import AppTruth, make_apps
from data_gen.config import WorldConfig
from data_gen.topics import TopicSpace, tag_names

N = 200_000
CONFIG = WorldConfig(initial_apps=N)
SMALL = WorldConfig(initial_apps=500, new_apps_per_day=100)
PUBLISHED = marginals.figures()
BUCKETS = np.array(
    sorted({int(x.rstrip("+").replace(",", "")) for x in PUBLISHED["installs_bucket_share"]})
)


@pytest.fixture(scope="module")
def apps():
    """Established apps: columns as numpy arrays by name, and the truth."""
    space = TopicSpace.build(CONFIG.seed)
    parts = [make_apps(CONFIG, space, at, at + N // 4) for at in range(0, N, N // 4)]
    table = pa.concat_tables([table for table, _ in parts]).drop_columns(["title", "tags"])
    columns = {x: table[x].to_numpy(zero_copy_only=False) for x in table.column_names}
    return columns, AppTruth.concatenate([truth for _, truth in parts])


def share_tolerance(share, n):
    """Four standard errors, and the rounding of the published figure."""
    return 4 * np.sqrt(share * (1 - share) / n) + 1e-4


@pytest.fixture(scope="module")
def distances(apps):
    """By figure: a row of (category, published, generated, distance, tolerance) each."""
    columns, _ = apps
    rows = {}
    for name, published in PUBLISHED["by_category"].items():
        of = columns["category"] == name
        n = of.sum()
        ratings = columns["rating"][of]
        ratings = ratings[~np.isnan(ratings)].astype(np.float64)
        sizes = columns["size_mb"][of]
        sizes = sizes[~np.isnan(sizes)]
        installs = int(np.median(columns["installs"][of]))
        share, paid = published["share"], published["paid_share"]
        mean, sd = published["rating_mean"], published["rating_sd"]
        size = published["size_mb_median"]
        found = {
            "share": (share, n / N, n / N - share, share_tolerance(share, N)),
            # 0.02: who is rated at all depends on quality a little.
            "rating_mean": (
                mean,
                ratings.mean(),
                ratings.mean() - mean,
                0.02 + 4 * sd / np.sqrt(len(ratings)),
            ),
            # Relative.  0.05: clipped to five stars and rounded to a tenth; a standard deviation
            # of a distribution of kurtosis 8 has the relative standard error 1.3 / sqrt(n).
            "rating_sd": (
                sd,
                ratings.std(),
                ratings.std() / sd - 1,
                0.05 + 4 * 1.3 / np.sqrt(len(ratings)),
            ),
            # Relative.  The density of log size at its median is about 0.29.
            "size_mb_median": (
                size,
                np.median(sizes),
                np.median(sizes) / size - 1,
                0.05 / size + 4 * 0.5 / 0.29 / np.sqrt(len(sizes)),
            ),
            # In buckets.
            "installs_median": (
                published["installs_median"],
                installs,
                np.searchsorted(BUCKETS, installs)
                - np.searchsorted(BUCKETS, published["installs_median"]),
                1,
            ),
            "paid_share": (
                paid,
                (columns["price_usd"][of] > 0).mean(),
                (columns["price_usd"][of] > 0).mean() - paid,
                share_tolerance(paid, n),
            ),
        }
        for figure, row in found.items():
            rows.setdefault(figure, []).append((name, *row))
    return rows


def test_a_table_of_the_distances_can_be_read(distances):
    """`pytest -rP` shows it."""
    print(f"{'':22}" + "".join(f"{figure:>25}" for figure in distances))
    for lines in zip(*distances.values(), strict=True):
        cells = (f"{distance:+12.4f} of ±{limit:8.4f}" for *_, distance, limit in lines)
        print(f"{lines[0][0]:22}" + "".join(f"{cell:>25}" for cell in cells))
    assert all(len(rows) == len(marginals.categories()) for rows in distances.values())


@pytest.mark.parametrize(
    "figure",
    ["share", "rating_mean", "rating_sd", "size_mb_median", "installs_median", "paid_share"],
)
def test_every_category_has_its_published(figure, distances):
    assert [row for row in distances[figure] if not abs(row[3]) <= row[4]] == []


def test_nearly_every_category_has_its_median_of_installs_in_the_published_bucket(distances):
    assert sum(row[3] == 0 for row in distances["installs_median"]) >= 30


def test_unpaid_categories_have_no_paid_app(distances):
    generated = [row[2] for row in distances["paid_share"] if row[1] == 0]
    assert generated == [0.0, 0.0, 0.0]


def test_installs_have_the_published_bucket_shares(apps):
    published = dict.fromkeys(BUCKETS.tolist(), 0.0)
    for label, share in PUBLISHED["installs_bucket_share"].items():
        published[int(label.rstrip("+").replace(",", ""))] += share
    found = {bucket: (apps[0]["installs"] == bucket).mean() for bucket in published}
    assert sum(found.values()) == pytest.approx(1)
    for bucket, share in published.items():
        # 3 %: the mixture over categories is not quite normal.
        assert abs(found[bucket] - share) < share_tolerance(share, N) + 0.03 * share, bucket


def test_overall_shares_are_the_published_ones(apps):
    columns, _ = apps
    missing = np.isnan(columns["rating"]).mean()
    assert abs(missing - PUBLISHED["rating"]["missing_share"]) < 0.005
    varies = PUBLISHED["size_mb"]["varies_with_device_share"]
    assert abs(np.isnan(columns["size_mb"]).mean() - varies) < share_tolerance(varies, N)
    paid = PUBLISHED["paid_share"]
    assert abs((columns["price_usd"] > 0).mean() - paid) < share_tolerance(paid, N)
    for label, share in PUBLISHED["content_rating_share"].items():
        found = (columns["content_rating"] == label).mean()
        assert abs(found - share) < share_tolerance(share, N), label


def quantile_range(sample, probability, margin=0.0):
    """Quantiles of `sample` four standard errors (and `margin`) below and above `probability`."""
    margin += 4 * np.sqrt(probability * (1 - probability) / len(sample))
    return np.quantile(sample, np.clip([probability - margin, probability + margin], 0, 1))


def test_reviews_have_the_published_quantiles(apps):
    reviews = apps[0]["reviews"]
    published = {float(p): v for p, v in PUBLISHED["reviews_quantiles"].items()}
    for probability in (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99):
        low, high = quantile_range(reviews, probability, margin=0.004)
        assert low <= published[probability] <= high, probability
    assert published[0] <= reviews.min()
    assert reviews.max() <= published[1]


def test_prices_have_the_published_quantiles_rounded_up_to_99_cents(apps):
    prices = apps[0]["price_usd"].astype(np.float64)
    prices = prices[prices > 0]
    for probability, price in PUBLISHED["price_usd_quantiles_when_paid"].items():
        low, high = quantile_range(prices, float(probability))
        assert low - 1e-4 <= np.ceil(price) - 0.01 <= high + 1e-4, probability
    np.testing.assert_allclose(prices % 1, 0.99, atol=1e-4)


def test_ratings_have_the_published_quantiles_to_a_tenth(apps):
    ratings = apps[0]["rating"]
    for probability, rating in PUBLISHED["rating"]["quantiles"].items():
        assert np.nanquantile(ratings, float(probability)) == pytest.approx(rating, abs=0.101)
    assert np.nanmin(ratings) >= 1
    assert np.nanmax(ratings) <= 5


@pytest.mark.parametrize("probability", ["0.05", "0.1", "0.25", "0.5", "0.75", "0.9", "0.95"])
def test_sizes_have_the_published_quantile(probability, apps):
    published = PUBLISHED["size_mb"]["quantiles"][probability]
    found = np.nanquantile(apps[0]["size_mb"], float(probability))
    assert found == pytest.approx(published, rel=0.12)


def test_what_helps_an_app_shows_in_what_the_store_knows_of_it(apps):
    columns, truth = apps
    installs = np.log1p(columns["installs"])
    assert np.corrcoef(truth.appeal, installs)[0, 1] > 0.4
    assert np.corrcoef(truth.quality, installs)[0, 1] > 0.1
    assert (np.diff(installs[np.argsort(-truth.popularity)]) <= 0).all()
    rated = ~np.isnan(columns["rating"])
    assert 0.3 < np.corrcoef(truth.quality[rated], columns["rating"][rated])[0, 1] < 0.8


def test_ranges_made_apart_and_joined_equal_one_made_at_once():
    space = TopicSpace.build(SMALL.seed)
    table, truth = make_apps(SMALL, space, 0, 1_000)
    cuts = [0, 1, 313, 555, 1_000]
    parts = [make_apps(SMALL, space, *cut) for cut in pairwise(cuts)]
    assert pa.concat_tables([part for part, _ in parts]).to_pydict() == table.to_pydict()
    joined = AppTruth.concatenate([part for _, part in parts])
    for name, expected in vars(truth).items():
        np.testing.assert_array_equal(getattr(joined, name), expected, err_msg=name)


def test_another_seed_makes_other_apps():
    other = SMALL.model_copy(update={"seed": SMALL.seed + 1})
    one, _ = make_apps(SMALL, TopicSpace.build(SMALL.seed), 0, 500)
    two, _ = make_apps(other, TopicSpace.build(other.seed), 0, 500)
    assert one["title"] != two["title"]
    assert one["installs"] != two["installs"]


def test_new_apps_come_out_day_by_day_without_any_past():
    table, truth = make_apps(SMALL, TopicSpace.build(SMALL.seed), 500, 800)
    assert table["release_day"].to_pylist() == [0] * 100 + [1] * 100 + [2] * 100
    assert table["rating"].null_count == 300
    assert set(table["installs"].to_pylist()) == set(table["reviews"].to_pylist()) == {0}
    assert not truth.popularity.any()


def test_established_apps_came_out_before_the_first_day(apps):
    release_day = apps[0]["release_day"]
    assert release_day.max() == -1
    assert -2191 <= release_day.min() < -2000


def test_topics_are_unit_vectors(apps):
    np.testing.assert_allclose(np.linalg.norm(apps[1].topic, axis=1), 1, atol=1e-5)


def test_an_apps_topic_is_nearer_to_its_own_tags_than_to_random_ones():
    space = TopicSpace.build(SMALL.seed)
    table, truth = make_apps(SMALL, space, 0, 500)
    names = tag_names()
    tags = np.array([[names.index(tag) for tag in row] for row in table["tags"].to_pylist()])
    other = np.random.default_rng(0).integers(len(names), size=tags.shape)

    def nearness(of):
        return np.einsum("nd,ntd->nt", truth.topic, space.tags[of]).mean(axis=1)

    assert (nearness(tags) > nearness(other)).mean() > 0.97
    assert nearness(tags).mean() > 0.5
    assert abs(nearness(other).mean()) < 0.1
    # An observable proxy, not the truth itself.
    assert nearness(tags).max() < 0.99


def test_the_first_tag_belongs_to_the_category_and_names_the_title():
    table, truth = make_apps(SMALL, TopicSpace.build(SMALL.seed), 0, 500)
    names = tag_names()
    for row, tag in zip(table.to_pylist(), truth.tag, strict=True):
        assert row["tags"][0] == names[tag]
        assert marginals.categories()[tag // 8] == row["category"]
        assert row["title"].split()[1] == names[tag].capitalize()


def test_the_truth_knows_the_size_that_the_listing_hides(apps):
    columns, truth = apps
    listed = ~np.isnan(columns["size_mb"])
    np.testing.assert_allclose(columns["size_mb"][listed], truth.size_mb[listed], atol=0.0501)
    assert (truth.size_mb > 0).all()


def test_a_few_developers_have_very_many_apps_all_in_one_category(apps):
    columns, truth = apps
    developer, count = np.unique(columns["developer_id"], return_counts=True)
    top_percent = np.sort(count)[::-1][: len(count) // 100].sum()
    assert top_percent > 0.1 * N
    pairs = np.unique(np.stack([columns["developer_id"], truth.category]), axis=1)
    assert pairs.shape[1] == len(developer)
