/** The one clock of the drill. */

/**
 * Milliseconds of the kernel's monotonic clock. All processes of one machine read the same clock, so
 * a stamp that one of them made can be compared with a stamp of another.
 */
export function nowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
