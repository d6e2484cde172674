"""Bytes that no client would send: HTTP/2 goes on, or ends with a word why."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.serving import http2_frames as h2
from mlplatform.serving.hpack import Decoder
from mlplatform.serving.http2_frames import frame
from tests.platform.serving.http2_peer import REQUEST, Peer, conversation
from tests.platform.serving.http2_wire import in_loop

kinds = st.integers(0, 11)
payloads = st.binary(max_size=40) | st.sampled_from(
    [REQUEST, REQUEST[:3], bytes(4), bytes(8), bytes(6)]
)
frames = st.builds(frame, kinds, st.integers(0, 255), st.sampled_from([0, 1, 2, 3, 5, 7]), payloads)


class TestFuzz:
    @given(st.lists(frames | st.binary(max_size=30), max_size=30), st.booleans())
    @settings(max_examples=300, deadline=None)
    @in_loop
    async def test_no_bytes_whatever_break_the_protocol(
        self, sent: list[bytes], greet: bool
    ) -> None:
        peer = Peer(greet=greet)
        for part in sent:
            peer.data_received(part)
        self.check(peer)

    @given(st.data())
    @settings(max_examples=300, deadline=None)
    @in_loop
    async def test_nor_does_a_conversation_with_some_bytes_changed(
        self, data: st.DataObject
    ) -> None:
        peer, sent = Peer(greet=False), bytearray(conversation())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(len(h2.PREFACE), len(sent) - 1))
            sent[at] = data.draw(st.integers(0, 255))
        peer.data_received(bytes(sent))
        self.check(peer)

    @staticmethod
    def check(peer: Peer) -> None:
        """It is over, with a word why; or it goes on, and answers."""
        reading: Decoder[Any] = Decoder(lambda fields: fields, 10_000)
        told = peer.wire.frames()  # whole frames, all of them
        for kind, _, _, payload in told:
            if kind == h2.HEADERS:
                reading.decode(payload)
        if peer.closing:
            assert told[-1][0] == h2.GOAWAY and peer.wire.ended
            assert not peer.streams
        else:
            assert not peer.wire.ended
        assert peer.unsent == sum(stream.unsent for stream in peer.streams.values())
