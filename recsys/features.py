"""The one declaration of every feature.

Training, serving, the schema's environments and the documentation read it; nothing else says what
a feature is.  To add one: declare it here, in the group of who or what it describes, and provide
its column in `examples.py` (training) and `online/feature_store.py` (serving).
"""

from mlplatform.transform.feature import Feature, Hashed, Quantiles, Vocabulary

# Where rows come from: the schema says of each column in which of the two it is expected.
TRAINING, SERVING = "TRAINING", "SERVING"

HISTORY_LENGTH = 20
RECENT_INSTALLS = 5

# What the request says of the user and of the moment.
REQUEST: tuple[Feature, ...] = (
    Feature("country", "string", "Country of the account.", Vocabulary()),
    Feature("language", "string", "Language of the account.", Vocabulary()),
    Feature("device_tier", "string", "Class of the device: low, mid or high.", Vocabulary()),
    Feature("age_band", "string", "Age as stated by the user, if they did.", Vocabulary()),
    Feature("ram_gb", "float32", "Memory of the device.", Quantiles(4), unit="GB"),
    Feature("free_storage_mb", "float32", "Free storage.", Quantiles(16), unit="MB"),
    Feature("os_version", "int64", "Major version of the operating system.", Vocabulary()),
    Feature("account_age_days", "int64", "Since sign-up.", Quantiles(8), unit="days"),
    Feature(
        "hour_of_day",
        "int64",
        "Hour of the request; the busiest one for a caller who does not say.",
        Vocabulary(),
        unit="hours",
        default=20,
    ),
    Feature("network", "string", "wifi or metered; missing for searches.", Vocabulary()),
    Feature("history_count", "int64", "Apps installed so far.", Quantiles(8), unit="apps"),
    Feature(
        "recent_categories",
        "string",
        "Categories of the last installs within 14 days, the latest first.",
        Vocabulary(shared_with="category"),
        width=RECENT_INSTALLS,
    ),
)

# The apps that the user installed before the request, the latest first, by id.
HISTORY = Feature("history", "int64", "Last installed apps.", width=HISTORY_LENGTH)

# All of them, so that none is recommended again; no model reads it.
OWNED = Feature("owned", "int64", "Installed apps, the latest first.", width=64)

# What the catalogue says of an app.
APP: tuple[Feature, ...] = (
    Feature("app_hash_a", "int64", "Its id.", Hashed(1 << 18, salt=1), source="app_id"),
    Feature(
        "app_hash_b", "int64", "Its id, hashed anew.", Hashed(1 << 18, salt=2), source="app_id"
    ),
    Feature("developer", "int64", "Its developer.", Hashed(1 << 16), source="developer_id"),
    Feature("category", "string", "Category.", Vocabulary()),
    Feature("tags", "string", "What it is about.", Vocabulary(min_count=2), width=3),
    Feature("size_mb", "float32", "Download; missing if it varies.", Quantiles(16), unit="MB"),
    Feature("price_usd", "float32", "Price.", Quantiles(16), unit="USD"),
    Feature("rating", "float32", "Mean of its ratings, if any.", Quantiles(16), unit="stars"),
    Feature("reviews", "int64", "Written reviews.", Quantiles(16), unit="reviews"),
    Feature(
        "installs", "int64", "Installs, lower bound of a bucket.", Vocabulary(), unit="installs"
    ),
    Feature("content_rating", "string", "Who it is for.", Vocabulary()),
    Feature("min_os", "int64", "Oldest operating system it runs on.", Vocabulary()),
)

# What is known of an app on the day it is shown, and where it is shown.
IMPRESSION: tuple[Feature, ...] = (
    Feature("app_age_days", "int64", "Since release.", Quantiles(8), unit="days"),
    Feature(
        "recent_impressions",
        "int64",
        "Times the app was shown in the seven days before.",
        Quantiles(16),
        unit="impressions",
    ),
    Feature(
        "recent_installs",
        "int64",
        "Installs of the app in the seven days before.",
        Quantiles(16),
        unit="installs",
    ),
    Feature(
        "recent_install_rate",
        "float32",
        "Of its impressions in the seven days before, smoothed towards the store's rate.",
        Quantiles(16),
        unit="installs per impression",
    ),
    Feature(
        "position",
        "int64",
        "Place in the list, from 1: it explains clicks in training and is 1 in serving.",
        Vocabulary(),
        training_only=True,
        default=1,
    ),
)

LABEL = Feature("installed", "int64", "1 if the impression led to an install.")

# What the two towers and the history of a user see of an app that the user owns.
HISTORY_VIEW: tuple[str, ...] = ("app_hash_a", "app_hash_b", "developer", "category", "tags")

ALL: tuple[Feature, ...] = (*REQUEST, *APP, *IMPRESSION)

# Keys, times and propensities: true of one row of the log alone, so no schema limits them.
LOGGED: tuple[str, ...] = ("request_id", "user_id", "app_id", "hour", "propensity")

# What users do moves these within a day, of which the store, written every morning, knows nothing.
MOVING: tuple[str, ...] = (HISTORY.name, "history_count", "recent_categories")

# What the log has and no server is asked about.
NOT_SERVED: tuple[str, ...] = (*LOGGED, LABEL.name, *(f.name for f in ALL if f.training_only))

# Pairs whose product the wide part learns by heart (Wide & Deep, section 3.1).  A name with
# 'history:' is that view of each of the last installed apps: the first pair is the paper's
# AND(user_installed_app, impression_app).
CROSS_HISTORY = 10
CROSSES: tuple[tuple[str, str], ...] = (
    ("history:app_hash_a", "app_hash_a"),
    ("history:tags", "tags"),
    ("recent_categories", "category"),
    ("age_band", "tags"),
    ("country", "category"),
    ("hour_of_day", "category"),
    ("os_version", "min_os"),
    ("free_storage_mb", "size_mb"),
    ("network", "size_mb"),
    ("device_tier", "price_usd"),
)
