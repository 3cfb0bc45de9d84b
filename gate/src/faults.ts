/** The door to what describes the faults of files that people write: for the command line, whose files have faults, too. */

export { type Described, shapeFaults } from './shape-faults.js';
export { yamlFault } from './yaml-file.js';
