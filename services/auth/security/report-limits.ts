/** Limits of service reports. */

/** Maximum number of rows that are read from a report. */
export const REPORT_ROWS_MAX = 2000;

/** Largest difference between the clocks of a service and of auth at which reports are accepted, in seconds. */
export const REPORT_CLOCK_DIFFERENCE_SECONDS_MAX = 3600;
