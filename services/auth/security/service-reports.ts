/** What services report of the calls that they were asked for: claims of theirs, in sums. */

/** Most lists' members of a report that are looked at. */
export const REPORT_ROWS_MAX = 2000;

/** Largest difference between the clocks of a service and of auth at which reports are accepted, in seconds. */
export const REPORT_CLOCK_DIFFERENCE_SECONDS_MAX = 3600;
