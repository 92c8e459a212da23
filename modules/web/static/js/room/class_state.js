// The state of a live class is a fold of its log: a snapshot, and the events after it. Pure; nothing here is changed in place.

const FOLDS = {
  class_started: (state, { at }) => ({ ...state, status: "live", started_at: at, ended_at: null }),
  class_ended: (state, { at }) => ({ ...state, status: "ended", ended_at: at, hands: [], called: null }),
  hand_raised: (state, { at, data }) => ({
    ...state,
    hands: [...without(state.hands, data.user_id), { user_id: data.user_id, name: data.name, raised_at: at }],
  }),
  hand_lowered: (state, { data }) => ({ ...state, hands: without(state.hands, data.user_id) }),
  hand_called: (state, { data }) => ({
    ...state,
    hands: without(state.hands, data.user_id),
    called: { user_id: data.user_id, name: data.name },
  }),
};

/** The state after `event`; the same state when the event does not concern it. */
export function foldClass(state, event) {
  return FOLDS[event.type]?.(state, event) ?? state;
}

function without(hands, userId) {
  return hands.filter((hand) => hand.user_id !== userId);
}
