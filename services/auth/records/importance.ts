/** The classes of work, each with database connections of its own. */

/**
 * `promise`: syncs, pulls, revocations, keys and background work. `known`: what callers with a token or a right password
 * ask for. `unknown`: what anyone may ask for.
 */
export type Importance = 'promise' | 'known' | 'unknown';
