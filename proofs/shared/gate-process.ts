/** Gates as processes of a private system: `portcullis gate`, compiled, and restartable under the same ports. */

import { join } from 'node:path';
import { createServiceProcess, type ServiceProcess } from '../../scripts/system/parts.js';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';

const COMMAND_LINE = join(PROJECT_FOLDER, 'cli', 'dist', 'src', 'main.js');

/** Prepares the process of a gate; `launch` starts it. */
export function createGateProcess(options: {
  readonly name: string;
  /** Where callers connect. */
  readonly address: string;
  readonly opsAddress: string;
  /** The other flags of `portcullis gate`, by name. */
  readonly flags: Readonly<Record<string, string>>;
  readonly logFile: string;
  /** Further arguments of Node. */
  readonly nodeArguments?: readonly string[];
}): ServiceProcess {
  const { name, address, opsAddress, flags, logFile, nodeArguments = [] } = options;
  const words = Object.entries({ listen: address, 'ops-listen': opsAddress, ...flags });
  return createServiceProcess({
    address,
    opsAddress,
    launch: {
      name,
      command: process.execPath,
      arguments: [
        ...nodeArguments,
        COMMAND_LINE,
        'gate',
        ...words.map(([flag, value]) => `--${flag}=${value}`),
      ],
      cwd: PROJECT_FOLDER,
      environment: { PATH: process.env['PATH'] },
      logFile,
    },
  });
}
