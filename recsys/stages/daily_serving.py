"""Stages of the loop that serve a day, which is `config.days.evaluate`: its first hours, its rest.

A day begins with yesterday's bundle, and at SWITCH_HOUR goes on with whichever was pushed last.
What `close_day` leaves is what the main job's `simulate_days` leaves, so that every day can follow.
"""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data_gen import sessions
from data_gen.world import Requests
from mlplatform.pipeline import Context
from recsys.config import RunConfig
from recsys.online.bundle import Bundle
from recsys.online.feature_store import FeatureStore
from recsys.online.recommender import Recommender
from recsys.serving_log import Served, serve
from recsys.stages.data import load_truth_of_the_morning, visits_of
from recsys.stages.day_files import write_end, write_events, write_log
from recsys.stages.versions import current_version

SWITCH_HOUR = 6.0
SHOWN = "shown.npz"


def open_day(config: RunConfig, registry: Path, context: Context) -> dict[str, Any]:
    """-> the first hours under yesterday's bundle: events/, log/, and what was shown."""
    world, memory = load_truth_of_the_morning(config, context)
    day = config.days.evaluate
    visits = sessions.visits(world, day)
    visits = visits.take(np.flatnonzero(visits.hour < 24.0 * day + SWITCH_HOUR))
    served = _serve(config, registry, visits, context)
    played = sessions.play_day(
        world, deepcopy(memory), day, visits, served.slates, served.propensities
    )
    known = played.installs["arrival_hour"].to_numpy() < 24.0 * day + SWITCH_HOUR
    write_events(context.output, day, replace(played, installs=played.installs.filter(known)))
    write_log(context.output, served)
    np.savez(context.output / SHOWN, slates=served.slates, propensities=served.propensities)
    return {"rows": len(visits)}


def close_day(config: RunConfig, registry: Path, context: Context) -> dict[str, Any]:
    """-> events/ of all days, log/ of this one, and the world as it is the next morning."""
    world, memory = load_truth_of_the_morning(config, context)
    day = config.days.evaluate
    visits = sessions.visits(world, day)
    late = np.flatnonzero(visits.hour >= 24.0 * day + SWITCH_HOUR)
    served = _serve(config, registry, visits.take(late), context)
    morning = context.inputs["open_day"]
    shown = np.load(morning / SHOWN, allow_pickle=False)
    # Visits come in order of time, so the first hours are the first rows.
    slates = np.concatenate([shown["slates"], served.slates])
    propensities = np.concatenate([shown["propensities"], served.propensities])
    played = sessions.play_day(world, memory, day, visits, slates, propensities)
    write_end(context, day, played, memory)
    write_log(context.output, served, before=morning)
    installs = len(played.installs) - played.installs["request_id"].null_count
    n_shown = len(played.impressions)
    return {
        "rows": n_shown,
        "version": current_version(registry, context).number,
        "requests": len(visits),
        "installs per impression": installs / n_shown,
        "installs per request": installs / len(visits),
    }


def _serve(config: RunConfig, registry: Path, visits: Requests, context: Context) -> Served:
    version = current_version(registry, context)
    bundle = Bundle.of_version(version)
    context.progress.expect(len(visits))
    with FeatureStore(context.inputs["build_feature_store"]) as store:
        recommender = Recommender(bundle, store)
        return serve(
            recommender,
            visits_of(visits),
            version.number,
            config.loop.exploration,
            config.seed,
            context.progress.advance,
        )
