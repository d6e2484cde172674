"""The gRPC service: the calls of `recommendations.proto`, which are those of `service.py`.

Enters: messages.  Leaves: messages; a mistake ends a call with the status of its error.  Messages
are read by `contract.py`'s models, so both doors refuse the same for the same reasons.
"""

from typing import Any

from google.protobuf.message import Message

from mlplatform.errors import PlatformError
from mlplatform.serving.grpc_methods import Context, Methods, Reply, hot, service, unary
from recsys.online import recommendations_pb2 as messages
from recsys.online.calls import DEADLINE_S, Answer, Calls
from recsys.online.contract import Feedback, Queries, Query, read_plain

SERVICE = "storeloop.v1.Recommendations"


def recommendations(calls: Calls) -> Methods:
    """The service, for `mlplatform.serving.grpc_server`, which ends calls that raise."""

    def recommend(request: Any, context: Context, reply: Reply) -> None:
        def done(answer: Answer | PlatformError) -> None:
            if not isinstance(answer, PlatformError):
                reply(messages.RecommendResponse(**answer))
            else:
                reply(answer)

        calls.recommend(_query(request), done, _within_s(context))

    async def recommend_batch(request: Any, context: Context) -> Message:
        asked = read_plain(Queries, {"requests": [_plain_query(one) for one in request.requests]})
        outcomes = await calls.answer_each(asked.requests, _within_s(context))
        return messages.RecommendBatchResponse(outcomes=map(_outcome, outcomes))

    async def record_events(request: Any, context: Context) -> Message:
        told = read_plain(Feedback, {"events": [_plain(event) for event in request.events]})
        return messages.RecordEventsResponse(accepted=calls.record(told.events))

    return service(
        SERVICE,
        {
            "Recommend": hot(recommend, messages.RecommendRequest),
            "RecommendBatch": unary(recommend_batch, messages.RecommendBatchRequest),
            "RecordEvents": unary(record_events, messages.RecordEventsRequest),
        },
    )


def _within_s(context: Context) -> float:
    left = context.time_remaining()
    return DEADLINE_S if left is None else min(left, DEADLINE_S)


def _outcome(outcome: dict[str, Any] | PlatformError) -> messages.Outcome:
    if isinstance(outcome, PlatformError):
        return messages.Outcome(error=str(outcome))
    return messages.Outcome(response=messages.RecommendResponse(**outcome))


def _query(request: Any) -> Query:
    return read_plain(Query, _plain_query(request))


def _plain_query(request: Any) -> dict[str, Any]:
    plain = _plain(request)
    for name in ("profile", "context"):
        if name in plain:
            plain[name] = _plain(plain[name])
    return plain


def _plain(message: Any) -> dict[str, Any]:
    """The fields that were set, by name."""
    return {
        field.name: list(value) if field.is_repeated else value
        for field, value in message.ListFields()
    }
