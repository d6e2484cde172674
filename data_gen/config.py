"""The world's parameters: how many, and how they behave.  Frozen before any experiment."""

from pydantic import BaseModel, ConfigDict, Field


class Behaviour(BaseModel):
    """Weights of the hidden install model, in logits; see `world.py` for where each one acts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    intercept: float = -5.95
    taste: float = Field(
        3.2, description="times the cosine of the user's taste and the app's topic"
    )
    quality: float = 0.4
    appeal: float = 0.6
    complement: float = Field(1.1, description="the user owns an app that goes with this one")
    substitute: float = Field(-1.3, description="the user owns an app that does the same job")
    saturation: float = Field(-0.06, description="for every owned app of the category past five")
    price: float = Field(-1.1, description="times price sensitivity and log(1 + price in USD)")
    storage: float = Field(-1.5, description="times size over a fifth of the free storage, above 1")
    metered: float = Field(-0.8, description="an app over 40 MB on a metered network")
    incompatible: float = Field(-8.0, description="the app needs a newer OS than the user's")
    fatigue: float = Field(-0.35, description="for every earlier day the user was shown this app")
    novelty: float = Field(0.7, description="times novelty seeking, for apps under 30 days old")
    age_category: float = Field(0.45, description="standard deviation of age band x category")
    country_category: float = Field(0.25, description="standard deviation of country x category")
    daypart_category: float = Field(0.35, description="standard deviation of daypart x category")
    hype: float = Field(0.6, description="a campaign, unobserved: it also raises exposure")
    mood: float = Field(0.4, description="standard deviation of a user's day, unobserved")


class WorldConfig(BaseModel):
    """Everything that determines a world: two worlds with equal configurations are identical."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(20170813, ge=0)
    initial_apps: int = Field(997_500, ge=500, description="apps in the store on day 0")
    new_apps_per_day: int = Field(500, ge=1)
    initial_users: int = Field(195_000, ge=100, description="users signed up by day 0")
    new_users_per_day: int = Field(1_000, ge=1)
    requests_per_user_day: float = Field(0.5, gt=0, le=3, description="mean over users")
    organic_per_user_day: float = Field(
        0.15, ge=0, le=3, description="searches, mean: what they find may be owned already"
    )
    slate_size: int = Field(10, ge=1, le=50, description="apps shown by the logged policy")
    behaviour: Behaviour = Behaviour()

    def apps_by(self, day: int) -> int:
        """How many apps have been released by the start of `day`: ids below it exist."""
        return self.initial_apps + self.new_apps_per_day * day

    def users_by(self, day: int) -> int:
        """How many users have signed up by the start of `day`: ids below it exist."""
        return self.initial_users + self.new_users_per_day * day
