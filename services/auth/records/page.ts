/** A page of a list. */

/** A page of a list, asked for. */
export interface PageRequest {
  readonly pageSize: number;
  readonly pageToken: string;
}
