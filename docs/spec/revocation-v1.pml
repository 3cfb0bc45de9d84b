/*
 * The revocation protocol, version 1: a model for Spin (https://spinroot.com). It transcribes the tables of
 * revocation-v1.md, without sleeping clocks, retention, full lists and receipts.
 *
 *     spin -a revocation-v1.pml && gcc -O2 -DSAFETY -o pan pan.c && ./pan -m100000
 *
 * A token T is revoked by one of the entries, and by a new epoch. Requests, responses, broadcasts and pulls may be lost,
 * delayed and overtaken: what can happen may also not happen. Safety: the instance does not admit T later than the length
 * of a lease after the commit. With -DWITHOUT_… one rule is left out, and Spin finds a violation.
 */

#ifndef ENTRIES
#define ENTRIES 1     /* commits; one of them revokes T */
#endif
#ifndef EPOCHS
#define EPOCHS 1      /* how often an epoch is opened */
#endif
#ifndef KEY_CHANGES
#define KEY_CHANGES 1 /* how often the key set changes while T stays valid */
#endif
#ifndef RESTORES
#define RESTORES 0    /* how often the database is restored from a backup */
#endif
#ifndef REQUESTS
#define REQUESTS 2    /* how many requests may be open */
#endif
#define L 2           /* the length of a lease, in ticks */
#define IDS (ENTRIES + EPOCHS + 1)

/* Epochs, entry ids and key sets count from 1; 0 is none. `victim` is the sequence of T's entry. */
typedef Log { byte epoch; byte head; byte id[IDS]; byte victim; byte keys };
Log log, backup;
byte ids, keySets, commits, epochs, changes, restores, epochOfKeys[EPOCHS + KEY_CHANGES + 2];
byte sentEpoch[IDS], sentSequence[IDS]; bit sentVictim[IDS];  /* broadcasts, by entry id */
bit hasBackup, revoked; byte age;  /* T is revoked, and for how many ticks; L stands for all later ones */

/* The instance. `installed` is the key set that verifies tokens, `keys` the one that its requests name. */
byte epoch, applied, appliedId, keys, installed, leaseAge; bit hasVictim, hasLease;
byte held[IDS];       /* the ids of broadcast entries after `applied`, by sequence; 0 is none */
typedef Pull { bit open; bit victim; byte epoch; byte head; byte headId };
Pull pull;
/* Open requests. `latest`: no response to a later request was applied. `ofList`: it describes the present list.
   `digest`: the XOR of the held ids up to `heldTo`, where each id is a bit of its own. */
typedef Request {
  bit open; bit latest; bit ofList; byte age; byte epoch; byte applied; byte appliedId; byte keys;
  byte heldTo; byte digest;
  bit answered; byte toEpoch; byte head; byte headId; byte toKeys; bit pull; bit victim
};
Request q[2];
bit newer;
hidden byte k, flag, digest;

#ifdef FOREIGN /* T is a token of another issuer: no key set and no epoch of ours ends it */
#define VERIFIES true
#else
#define VERIFIES (epochOfKeys[installed] == 1)
#endif
#ifdef WITHOUT_LEASE
#define RUNS hasLease
#else
#define RUNS (hasLease && leaseAge < L)
#endif
#ifdef WITHOUT_SAME_LIST /* defect D1: comparing epochs is not enough */
#define LEADS(i) q[i].latest
#define CONTINUES(i) (q[i].epoch == epoch)
#else
#define LEADS(i) (q[i].latest && q[i].ofList)
#define CONTINUES(i) q[i].ofList
#endif
#define HAS_KEYS(i) (q[i].toKeys != 0 || (keys != 0 && q[i].keys == keys))

inline copyLog(to, from) {
  for (k : 0 .. IDS - 1) { to.id[k] = from.id[k] }
  to.epoch = from.epoch; to.head = from.head; to.victim = from.victim; to.keys = from.keys
}
inline append(isVictim) {
  ids++; log.head++; log.id[log.head] = ids; log.victim = (isVictim -> log.head : log.victim);
  sentEpoch[ids] = log.epoch; sentSequence[ids] = log.head; sentVictim[ids] = isVictim
}
inline revoke() { age = (revoked -> age : 0); revoked = 1 }
inline changeKeys() { keySets++; log.keys = keySets; epochOfKeys[keySets] = log.epoch }
inline openEpoch() {
  flag = (log.victim != 0); log.epoch++; log.head = 0; log.victim = 0;
  for (k : 0 .. IDS - 1) { log.id[k] = 0 }
  changeKeys();
#ifdef FOREIGN
  if :: flag -> append(1) :: else fi /* entries about other issuers' tokens are copied */
#else
  revoke()
#endif
}

inline clear(i) {
  q[i].open = 0; q[i].latest = 0; q[i].ofList = 0; q[i].age = 0; q[i].epoch = 0; q[i].applied = 0; q[i].appliedId = 0;
  q[i].keys = 0; q[i].answered = 0; q[i].toEpoch = 0; q[i].head = 0; q[i].headId = 0; q[i].toKeys = 0;
  q[i].pull = 0; q[i].victim = 0; q[i].heldTo = 0; q[i].digest = 0
}
inline ask(i) {
  q[i].open = 1; q[i].latest = 1; q[i].ofList = 1;
  q[i].epoch = epoch; q[i].applied = applied; q[i].appliedId = appliedId; q[i].keys = keys; q[i].heldTo = applied;
  for (k : 1 .. IDS - 1) {
    if
    :: k == q[i].heldTo + 1 && held[k] != 0 -> q[i].heldTo = k; q[i].digest = q[i].digest ^ (1 << held[k])
    :: else
    fi
  }
  newer = i
}
/* The table of the issuer. After LOG_CHANGED nothing is left of the request. */
inline answer(i, from) {
  q[i].answered = 1; q[i].toEpoch = from.epoch; q[i].head = from.head; q[i].headId = from.id[from.head];
  q[i].toKeys = (q[i].keys == from.keys -> 0 : from.keys);
  if
  :: q[i].epoch < from.epoch -> q[i].pull = 1
  :: q[i].epoch > from.epoch || (q[i].epoch == from.epoch && q[i].applied > from.head) -> clear(i)
  :: q[i].epoch == from.epoch && q[i].applied <= from.head ->
    digest = 0;
    for (k : 1 .. IDS - 1) {
      if :: k > q[i].applied && k <= q[i].heldTo -> digest = digest ^ (1 << from.id[k]) :: else fi
    }
#ifdef WITHOUT_DIGEST
    digest = q[i].digest;
#endif
    q[i].victim = (from.victim > (digest == q[i].digest -> q[i].heldTo : q[i].applied));
#ifndef WITHOUT_ENTRY_ID
    if :: from.id[q[i].applied] != q[i].appliedId -> clear(i) :: else fi
#endif
  fi;
  q[i].heldTo = 0; q[i].digest = 0
}

inline advance(to, toId) {
  for (k : 1 .. IDS - 1) { held[k] = (k <= to -> 0 : held[k]) }
  appliedId = (to > applied -> toId : appliedId); applied = (to > applied -> to : applied)
}
inline endPull() { pull.open = 0; pull.victim = 0; pull.epoch = 0; pull.head = 0; pull.headId = 0 }
/* The table of the instance: a response arrives. */
inline apply(i) {
  if
  :: q[i].toEpoch != epoch && LEADS(i) ->
    epoch = q[i].toEpoch; keys = 0; hasVictim = 0; q[0].ofList = 0; q[1].ofList = 0; endPull();
#ifndef WITHOUT_EPOCH_ENDS_LEASE
    hasLease = 0; leaseAge = 0;
#endif
    applied = 0; appliedId = 0;
    for (k : 1 .. IDS - 1) { held[k] = 0 }
  :: else
  fi;
  if
  :: q[i].toEpoch == epoch ->
    hasVictim = hasVictim || q[i].victim;
    if
    :: q[i].latest ->
      q[1 - i].latest = q[1 - i].latest && i != newer;
      installed = (q[i].toKeys != 0 -> q[i].toKeys : installed); keys = (q[i].toKeys != 0 -> q[i].toKeys : keys);
#ifdef WITHOUT_HYDRATION
      if :: q[i].pull -> advance(q[i].head, q[i].headId) :: else fi;
#endif
      if
      :: !q[i].pull && CONTINUES(i) && HAS_KEYS(i) ->
        advance(q[i].head, q[i].headId); hasLease = 1; leaseAge = q[i].age;
#ifdef WITHOUT_LEASE_START
        leaseAge = 0
#endif
      :: else
      fi
    :: else
    fi
  :: else
  fi;
  clear(i)
}
inline broadcast(sent) {
  hasVictim = hasVictim || sentVictim[sent];
  held[sentSequence[sent]] = (sentSequence[sent] > applied -> sent : 0)
#ifdef WITHOUT_APPLIED
  ;
  advance(sentSequence[sent], sent)
#endif
}
inline later(ticks, counts) { ticks = (counts && ticks < L -> ticks + 1 : ticks) }

#define REQUEST(i) \
  :: d_step { !q[i].open -> ask(i) } \
  :: d_step { q[i].open && !q[i].answered -> answer(i, log) } \
  :: d_step { q[i].answered -> apply(i) } \
  :: d_step { q[i].open -> clear(i) }

active proctype world() {
  d_step { log.epoch = 1; changeKeys() }
  do
  :: d_step { commits < ENTRIES -> commits++; append(0) }
  :: d_step { commits < ENTRIES && log.victim == 0 && !revoked -> commits++; append(1); revoke() }
  :: d_step { epochs < EPOCHS -> epochs++; openEpoch() }
  :: d_step { changes < KEY_CHANGES -> changes++; changeKeys() }
  :: d_step { RESTORES > 0 && !hasBackup -> hasBackup = 1; copyLog(backup, log) }
  :: d_step { restores < RESTORES && hasBackup -> restores++; copyLog(log, backup); revoked = (log.victim != 0) }
  REQUEST(0)
#if REQUESTS > 1
  REQUEST(1)
#endif
#ifdef WITHOUT_FENCE
  :: d_step { hasBackup && q[0].open && !q[0].answered -> answer(0, backup) }
#endif
  :: d_step { ids >= 1 && sentEpoch[1] == epoch -> broadcast(1) }
#if ENTRIES + EPOCHS > 1
  :: d_step { ids >= 2 && sentEpoch[2] == epoch -> broadcast(2) }
#endif
  :: d_step { epoch != 0 && !pull.open -> pull.open = 1; pull.victim = (log.victim != 0);
      pull.epoch = log.epoch; pull.head = log.head; pull.headId = log.id[log.head] }
  :: d_step { pull.open && pull.epoch == epoch ->
#ifdef WITHOUT_MERGED_PULL
      hasVictim = pull.victim;
#else
      hasVictim = hasVictim || pull.victim;
#endif
      advance(pull.head, pull.headId); endPull() }
  :: d_step { pull.open -> endPull() }
  :: d_step { later(age, revoked); later(leaseAge, hasLease);
      later(q[0].age, q[0].open); later(q[1].age, q[1].open) }
  :: d_step { revoked && age >= L && RUNS && VERIFIES && !hasVictim -> assert(false) }
  od
}
