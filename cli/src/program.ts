/** The commands, their options and their help. */

import type { RawSettings } from '@portcullis/gate';
import { GATE_FLAGS } from '@portcullis/gate/flags';
import { Command, CommanderError, Option } from 'commander';
import { createCli } from './cli.js';
import { addCallCommand } from './commands/call.js';
import { addClientCommands } from './commands/clients.js';
import { addCompletionCommands } from './commands/completion.js';
import { addDoctorCommands } from './commands/doctor.js';
import { addEventCommands } from './commands/events.js';
import { addExplainCommand } from './commands/explain.js';
import { openGate, printGateRules } from './commands/gate.js';
import { addInstanceCommands } from './commands/instances.js';
import { addKeyCommands } from './commands/keys.js';
import { login, logout, printToken } from './commands/login.js';
import { applyPolicy, getPolicy, planPolicy } from './commands/policy.js';
import { addRevocationCommands } from './commands/revocations.js';
import { addRevokeCommand } from './commands/revoke.js';
import { addService, printBrokerConfig } from './commands/service.js';
import { addSessionCommands } from './commands/sessions.js';
import { START_FLAGS, startSystem } from './commands/start.js';
import { addUserCommands } from './commands/users.js';
import { type ContextStore, createContextStore } from './contexts.js';
import { describeFailure, EXIT, EXIT_MEANINGS, type ExitCode } from './failures.js';
import { listOf, portOf } from './options.js';
import type { Streams, Terminal } from './terminal.js';

const ADDRESS_DEFAULT = 'localhost:50051';
const NATS_URL_DEFAULT = 'nats://localhost:4222';

/** The streams, the stored sessions, and the arguments after the program's name. */
export interface Invocation {
  readonly terminal: Streams;
  readonly store: ContextStore;
  readonly words: readonly string[];
}

/** Runs one command line. Never throws: failures are told on standard error. */
export async function runProgram({ terminal: streams, store, words }: Invocation): Promise<ExitCode> {
  const program = createProgram(streams, store);
  try {
    await program.parseAsync(words, { from: 'user' });
    return EXIT.done;
  } catch (error) {
    // commander has told what is wrong with the command line.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage;
    const { text, exitCode } = describeFailure(error);
    streams.notes.write(`${text}\n`);
    return exitCode;
  }
}

function createProgram(streams: Streams, store: ContextStore): Command {
  const program = new Command('portcullis')
    .description(
      'Operates a system of Portcullis: sessions, revocations, evidence, keys, users, clients, policy and services.',
    )
    .option('--json', 'print results as JSON')
    .option('--context <name>', 'the system to use; default: the last one that was logged in to')
    .addHelpText(
      'after',
      `\nExit codes:\n${EXIT_MEANINGS.map(([code, meaning]) => `  ${String(code).padEnd(4)} ${meaning}`).join('\n')}`,
    )
    .exitOverride()
    .configureOutput({
      writeOut: (text) => streams.output.write(text),
      writeErr: (text) => streams.notes.write(text),
    });
  const terminal = (): Terminal => ({ ...streams, json: program.opts<{ json?: true }>().json === true });
  const withContext = <Options extends object>(options: Options): Options & { context?: string } => ({
    ...options,
    ...program.opts<{ context?: string }>(),
  });

  program
    .command('login')
    .description('log in, and keep the session in a private file')
    .requiredOption('--user <name>', 'user name')
    .addOption(
      new Option('--address <host:port>', 'address of auth')
        .env('PORTCULLIS_ADDRESS')
        .default(ADDRESS_DEFAULT),
    )
    .option('--ca <file>', 'CA certificate of auth (PEM); without it, plaintext on this machine only')
    .option('--cert <file>', 'client certificate (PEM)')
    .option('--key <file>', 'key of the client certificate (PEM)')
    .option('--scopes <names>', 'scopes to ask for, separated by commas; default: all', listOf)
    .option('--audiences <names>', 'services to ask for, separated by commas; default: all', listOf)
    .option('--password-stdin', 'read the password from standard input')
    .addOption(
      new Option('--password-file <file>', 'read the password from a file').env('PORTCULLIS_PASSWORD_FILE'),
    )
    .action((options) => login(terminal(), store, withContext(options)));
  program
    .command('logout')
    .description('end the session, and forget it')
    .action((options) => logout(terminal(), store, withContext(options)));
  program
    .command('token')
    .description('print an access token of the session, for other programs')
    .action((options) => printToken(terminal(), store, withContext(options)));

  const policy = program.command('policy').description('services with their scopes, and roles');
  policy
    .command('get')
    .description('print the policy in force as YAML')
    .action((options) => getPolicy(terminal(), store, withContext(options)));
  policy
    .command('plan <file>')
    .description('print what a policy file would change')
    .action((file, options) => planPolicy(terminal(), store, file, withContext(options)));
  policy
    .command('apply <file>')
    .description('make the policy of a file the one in force')
    .option('--etag <etag>', 'apply only if the policy is still the one that plan has compared with')
    .option('--reason <text>', 'why, for the security event')
    .option('--request-id <uuid>', 'the id of an earlier request, to repeat it: it is answered once')
    .action((file, options) => applyPolicy(terminal(), store, file, withContext(options)));

  const service = program.command('service').description('services of your own');
  service
    .command('add <name>')
    .description('register a service: its scopes, its client, and its user at the broker')
    .option('--proto <file>', 'descriptor set of the service, as buf build -o FILE.binpb writes it')
    .option(
      '--rules <file>',
      'access rules in YAML or JSON, for methods whose .proto has none, as for the gate',
    )
    .option('--role <names>', 'roles that get its scopes, separated by commas', listOf, [])
    .option('--description <text>', 'what it is, for people')
    .option(
      '--exchange <audiences>',
      'services that it calls for its callers, separated by commas',
      listOf,
      [],
    )
    .option('--out <folder>', 'where to write its keys', '.')
    .addOption(
      new Option('--nats-url <url>', 'the broker, for the settings')
        .env('PORTCULLIS_NATS_URL')
        .default(NATS_URL_DEFAULT),
    )
    .option('--env <file>', 'write the settings to a file, for node --env-file')
    .option('--dry-run', 'print what would change, and change nothing')
    .action((name, options) => addService(terminal(), store, name, withContext(options)));
  service
    .command('broker-config')
    .description('print what nats-server must allow the registered services')
    .action((options) => printBrokerConfig(terminal(), store, withContext(options)));

  const gate = program
    .command('gate')
    .description(
      'guard a gRPC server of any language: admit calls by rules, and end those whose token is revoked',
    )
    .option('--config <file>', 'settings in YAML or JSON, under the names of these options');
  for (const { name, value, help } of GATE_FLAGS) gate.option(`--${name} <${value}>`, help);
  gate.action((_, command: Command) =>
    openGate(gateSettingsOf(command), command.opts<{ config?: string }>().config),
  );
  gate
    .command('rules <file>')
    .description('print the access rule of every method of a descriptor set, or of a file of rules')
    .option('--rules <file>', 'access rules in YAML or JSON, for methods whose .proto has none')
    .option('--public <paths>', 'methods that need no token, separated by commas')
    .action((file: string, _: unknown, command: Command) => {
      // The gate has options of the same names, and commander gives the values to it.
      const { rules, public: paths } = command.optsWithGlobals<{ rules?: string; public?: string }>();
      return printGateRules(terminal(), file, {
        ...(rules !== undefined && { rules }),
        public: paths === undefined ? [] : listOf(paths),
      });
    });
  const start = program
    .command('start')
    .description(
      'run a whole system on this machine, for trying and developing; needs the package @portcullis/system',
    )
    .option('--free-ports', 'use free ports instead of the documented ones')
    .addHelpText(
      'after',
      '\nUntil Ctrl-C: database, broker, auth, two instances of inventory, payment. The data are kept in .portcullis in\n' +
        'the current folder, unless PORTCULLIS_DATA_DIR names another one. DATABASE_URL and NATS_URL name servers to use\n' +
        'instead of starting them, NATS_SERVER_BIN the program of nats-server. Variables of services are passed on.',
    );
  for (const { flag, what, port } of START_FLAGS) {
    start.option(`${flag} <port>`, `port of ${what}; default: ${port}`, portOf);
  }
  start.action((_, command: Command) => startSystem(startWordsOf(command)));
  const cli = createCli({ store, terminal, context: () => program.opts<{ context?: string }>().context });
  for (const add of COMMANDS) add(program, cli);
  return program;
}

/** The commands beyond logins, the policy and services, in the order of the help. */
const COMMANDS = [
  addSessionCommands,
  addRevokeCommand,
  addRevocationCommands,
  addInstanceCommands,
  addKeyCommands,
  addUserCommands,
  addClientCommands,
  addEventCommands,
  addExplainCommand,
  addCallCommand,
  addDoctorCommands,
  addCompletionCommands,
];

/** The options of the gate that were given, under their own names. */
function gateSettingsOf(command: Command): RawSettings {
  const given = GATE_FLAGS.flatMap(({ name }) => {
    const value: unknown = command.getOptionValue(camelCase(name));
    return typeof value === 'string' ? [[name, value] as const] : [];
  });
  return Object.fromEntries(given);
}

/** The flags of start that were given, as words of its own command line. */
function startWordsOf(command: Command): readonly string[] {
  const { freePorts, json } = command.optsWithGlobals<{ freePorts?: true; json?: true }>();
  return [
    ...(freePorts === true ? ['--free-ports'] : []),
    ...(json === true ? ['--json'] : []),
    ...START_FLAGS.flatMap(({ flag }) => {
      const port: unknown = command.getOptionValue(camelCase(flag.slice(2)));
      return typeof port === 'number' ? [flag, String(port)] : [];
    }),
  ];
}

function camelCase(name: string): string {
  return name.replace(/-([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

/** The command tree, for documentation: nothing of it can run. */
export function describeProgram(): Command {
  const { stdin: input, stdout: output, stderr: notes } = process;
  return createProgram({ input, output, notes }, createContextStore({}));
}
