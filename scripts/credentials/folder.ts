/** The folder of a deployment's credentials: files are made once, and never overwritten. */

import { chmod, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { makeFolder, writeAtomically } from '../system/files.js';

/**
 * A container sees single files, mounted, and its user must be able to read them. On the host, the folder admits its owner
 * alone.
 */
const MOUNTED_MODE = 0o444;
const FOLDER_MODE = 0o700;

/** Makes files in a folder, and counts them. */
export class CredentialFolder {
  readonly path: string;
  readonly made: string[] = [];
  kept = 0;

  private constructor(path: string) {
    this.path = path;
  }

  /** Creates the folder unless it exists. */
  static async open(path: string): Promise<CredentialFolder> {
    await makeFolder(path, FOLDER_MODE);
    await chmod(path, FOLDER_MODE);
    return new CredentialFolder(path);
  }

  file(name: string): string {
    return join(this.path, name);
  }

  /** The content of a file, made when it is missing. */
  async readOrMake(name: string, make: () => string | Promise<string>): Promise<string> {
    const known = await this.#known(name);
    if (known !== undefined) {
      this.kept += 1;
      return known;
    }
    const content = await make();
    await this.#write(name, content);
    this.made.push(name);
    return content;
  }

  /** Writes a file that follows from the others. */
  async derive(name: string, content: string): Promise<void> {
    const known = await this.#known(name);
    if (known === content) this.kept += 1;
    else {
      await this.#write(name, content);
      this.made.push(name);
    }
  }

  /** Undefined when the file is missing. One that cannot be read is there, and must not be overwritten. */
  async #known(name: string): Promise<string | undefined> {
    try {
      return await readFile(this.file(name), 'utf8');
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
      throw error;
    }
  }

  async #write(name: string, content: string): Promise<void> {
    await writeAtomically(this.file(name), content);
    await chmod(this.file(name), MOUNTED_MODE);
  }
}
