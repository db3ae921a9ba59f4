"""What the postprocessing model does to one response: generated ids to text."""

import numpy as np

from inflight.text.detokenizer import Detokenizer, cut


class Postprocessor:
    """Stateless: where a stream goes on is in each response's own tensors."""

    def __init__(self, detokenizer: Detokenizer):
        self._detokenizer = detokenizer

    def __call__(
        self,
        tokens: np.ndarray,
        sequence_lengths: np.ndarray | None = None,
        preceding_ids: np.ndarray | None = None,
        sequence_finished: np.ndarray | None = None,
        num_cut_bytes: np.ndarray | None = None,
    ) -> np.ndarray:
        """The texts, UTF-8 bytes objects, one a sequence or beam and without the batch dimension, as clients of
        TensorRT-LLM's postprocessing read them: [batch * beams].

        tokens: [batch, beams, n] or [beams, n]. sequence_lengths: [batch, beams] or [beams], how many of the n
        tokens count; all where it is not given. preceding_ids: [batch, 16] or [16], the ids before `tokens`, -1 for
        none. sequence_finished: [batch, 1] or [1]. Without these two, the tokens are a whole sequence. num_cut_bytes:
        [batch, beams] or [beams], how many bytes at the end are not part of the text, because a stop word ends before;
        none where it is not given.
        """
        beams, width = tokens.shape[-2:]
        lengths = (
            [width] * int(np.prod(tokens.shape[:-1]))
            if sequence_lengths is None
            else sequence_lengths.reshape(-1).tolist()
        )
        rows = tokens.reshape(len(lengths), width).tolist()
        preceding = [()] * len(rows) if preceding_ids is None else _per_row(preceding_ids, beams)
        finished = [True] * len(rows) if sequence_finished is None else sequence_finished.repeat(beams).tolist()
        cuts = [0] * len(rows) if num_cut_bytes is None else num_cut_bytes.reshape(-1).tolist()
        texts = np.empty(len(rows), np.object_)
        for index, row in enumerate(rows):
            text = self._detokenizer.decode(row[: max(0, lengths[index])], preceding[index], finished[index])
            texts[index] = cut(text, cuts[index]).encode()
        return texts


def _per_row(preceding_ids: np.ndarray, beams: int) -> list[list[int]]:
    rows = preceding_ids.reshape(-1, preceding_ids.shape[-1]).tolist()
    return [[token for token in row if token >= 0] for row in rows for _ in range(beams)]
