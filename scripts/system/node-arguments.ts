/**
 * How Node runs a service: twice V8's usual young generation. Why not more, and not less, stands in decision 0028.
 */
export const NODE_ARGUMENTS: readonly string[] = ['--max-semi-space-size=32', '--import', 'tsx'];
