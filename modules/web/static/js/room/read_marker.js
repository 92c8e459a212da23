// ReadMarker: how far one has read, told to the server at most once a second, and where the line "New" stands.

const TELL_EVERY = 1000; // milliseconds

export class ReadMarker {
  newAfter = null; // the line stands before the first message of somebody else after this seq; null: no line
  #read = 0;
  #told = 0;
  #timer = null;
  #tell;
  #changed;

  constructor({ tell, changed }) {
    this.#tell = tell;
    this.#changed = changed;
  }

  /** The room was entered and its log ends at `head`. What came since the last visit is new; on the first visit nothing. */
  begin(head, readSeq) {
    this.#read = Math.min(readSeq ?? head, head);
    this.#told = this.#read;
    this.newAfter = this.#read > 0 && this.#read < head ? this.#read : null;
  }

  /** Everything up to `seq` was on the screen. */
  reached(seq) {
    if (seq <= this.#read) return;
    this.#read = seq;
    this.#timer ??= setTimeout(() => this.flush(), TELL_EVERY);
  }

  /** The same person read further on another device. */
  heard(seq) {
    if (seq <= this.#read) return;
    this.#read = seq;
    this.newAfter = null;
    this.#changed();
  }

  /** The reader looked away: what comes from now on is new. */
  lookedAway() {
    this.newAfter = this.#read;
    this.#changed();
  }

  /** The reader answered, so nothing above is new any more. */
  answered() {
    this.newAfter = null;
    this.#changed();
  }

  flush() {
    clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#read <= this.#told) return;
    this.#told = this.#read;
    this.#tell(this.#read);
  }
}
