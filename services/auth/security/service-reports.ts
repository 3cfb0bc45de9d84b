/** What services report of the calls that they were asked for: claims of theirs, in sums. */

/** Most lists' members of a report that are looked at. */
export const REPORT_ROWS_MAX = 2000;

/** By how much the clock of a service may differ from the database's, in seconds, before its reports are refused. */
export const REPORT_CLOCK_DIFFERENCE_SECONDS_MAX = 3600;
