/** Requests for a page of a list (AIP-158). */

export interface PageRequest {
  readonly pageSize: number;
  readonly pageToken: string;
}
