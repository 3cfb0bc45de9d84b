/** A clock that a test controls: the machine's clocks, which a test sets forward. It is that of the kit for tests. */

export { TestClock as MovableClock } from '@portcullis/guard/internal';
