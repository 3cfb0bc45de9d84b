/** Arguments of Node for a service: twice V8's default young generation; decision 0028 explains the size. */
export const NODE_ARGUMENTS: readonly string[] = ['--max-semi-space-size=32', '--import', 'tsx'];
