/*
 * The fence of the revocation protocol, version 1: a model for Spin, beside revocation-v1.pml. Rows are those of
 * revocation-v1.md.
 *
 *     spin -a revocation-v1-fence.pml && gcc -O2 -DSAFETY -o pan pan.c && ./pan -m100000
 *
 * Two instances of a service run transactions of a token T of another issuer, which one of two entries revokes. Leases
 * never end. Syncs, broadcasts, raises and reports may be as late as they like, or never happen. Safety: nothing of T is
 * committed after the Revoke of its entry has returned FENCED. With -DWITHOUT_… one rule is left out, and Spin finds a
 * violation.
 */

#define ENTRIES 2     /* commits; each waits for the fence, and one of them revokes T */
#define EPOCHS 1      /* how often an epoch is opened */

typedef Place { byte number; byte sequence };
/* The issuer. `victim` is the sequence of T's entry, `target` the place of the entry whose Revoke waits. */
Place log, target, reported; byte victim, wanted, commits, epochs; bit hasBeenVictim, fenced;
/* The fence, and the instance that has locked it exclusively; 2 is none. */
Place fence; byte exclusive = 2;
/* An instance: its place, what it knows of the log, where it knows the fence to stand, and its transaction. */
typedef Instance {
  Place place; byte wanted; bit hasVictim; Place known;
  bit begun; bit good; Place seen;  /* a transaction has begun, found T good, and sees the fence as it was then */
  bit passed; bit shares            /* it has passed, and shares the lock */
};
Instance x[2];
Place raised;
bit isRaised;

#define BEFORE(a, b) (a.number < b.number || (a.number == b.number && a.sequence < b.sequence))
#ifdef WITHOUT_FENCE_EPOCH /* places are compared by sequence alone */
#define LAGS(i, f) (x[i].place.sequence < f.sequence)
#else
#define LAGS(i, f) BEFORE(x[i].place, f)
#endif
#ifdef WITHOUT_FENCE_REPORTED_EPOCH
#define REACHED (reported.sequence >= target.sequence)
#else
#define REACHED !BEFORE(reported, target)
#endif

#define SET(to, n, s) to.number = n; to.sequence = s
inline append(isVictim) {
  log.sequence++; wanted = log.sequence;
  if
  :: isVictim -> victim = log.sequence; hasBeenVictim = 1; SET(target, log.number, log.sequence)
  :: else
  fi
}
inline openEpoch() {
  log.number++; log.sequence = 0; wanted = 0;
  /* Entries about other issuers' tokens are copied. */
  if :: victim != 0 -> log.sequence = 1; victim = 1 :: else fi
}
inline sync(i) {
  if :: x[i].place.number != log.number -> x[i].hasVictim = 0 :: else fi;
  SET(x[i].place, log.number, log.sequence); x[i].wanted = wanted; x[i].hasVictim = (victim != 0)
}
/* An entry arrives by broadcast: T's, or the last one. */
inline broadcastVictim(i) { x[i].hasVictim = 1 }
#ifdef WITHOUT_FENCE_APPLIED
inline broadcastLast(i) {
  x[i].hasVictim = x[i].hasVictim || (victim == log.sequence); x[i].place.sequence = log.sequence
}
#endif
inline begin(i) {
  x[i].begun = 1; x[i].good = !x[i].hasVictim; SET(x[i].seen, fence.number, fence.sequence)
}
inline over(i) {
  x[i].begun = 0; x[i].good = 0; x[i].passed = 0; x[i].shares = 0; SET(x[i].seen, 0, 0)
}
/* Rows X1 to X4. */
inline pass(i) {
#ifdef WITHOUT_FENCE_LATEST
  isRaised = LAGS(i, x[i].seen);
#else
  isRaised = LAGS(i, fence);
#endif
#ifdef WITHOUT_FENCE_POSITION
  isRaised = 0;
#endif
  x[i].passed = !isRaised;
#ifdef WITHOUT_FENCE_LIST
  x[i].passed = x[i].passed && x[i].good;
#else
  x[i].passed = x[i].passed && !x[i].hasVictim;
#endif
#ifndef WITHOUT_FENCE_LOCK
  x[i].shares = x[i].passed;
#endif
  if :: !x[i].passed -> over(i) :: else fi;
  isRaised = 0
}
/* Rows X5 to X8. */
inline lock(i) { exclusive = i; SET(raised, x[i].place.number, x[i].wanted) }
inline raise(i) {
#ifdef WITHOUT_FENCE_RISES
  SET(fence, raised.number, raised.sequence);
#else
  if :: BEFORE(fence, raised) -> SET(fence, raised.number, raised.sequence) :: else fi;
#endif
  SET(x[i].known, fence.number, fence.sequence); exclusive = 2; SET(raised, 0, 0)
}

#define INSTANCE(i) \
  :: d_step { log.number != 0 -> sync(i) } \
  :: d_step { victim != 0 && x[i].place.number == log.number && !x[i].hasVictim -> broadcastVictim(i) } \
  :: d_step { !x[i].begun -> begin(i) } \
  :: d_step { x[i].begun && !x[i].passed && exclusive == 2 -> pass(i) } \
  :: d_step { x[i].passed -> assert(!fenced); over(i) } \
  :: d_step { x[i].begun -> over(i) } \
  :: d_step { exclusive == 2 && !x[0].shares && !x[1].shares && x[i].wanted != 0 && \
      x[i].place.sequence >= x[i].wanted -> lock(i) } \
  :: d_step { exclusive == i -> raise(i) } \
  :: d_step { exclusive == i -> exclusive = 2; SET(raised, 0, 0) } \
  :: d_step { BEFORE(reported, x[i].known) -> SET(reported, x[i].known.number, x[i].known.sequence) }

active proctype world() {
  d_step { log.number = 1 }
  do
  :: d_step { commits < ENTRIES -> commits++; append(0) }
  :: d_step { commits < ENTRIES && !hasBeenVictim -> commits++; append(1) }
  :: d_step { epochs < EPOCHS -> epochs++; openEpoch() }
  INSTANCE(0)
  INSTANCE(1)
#ifdef WITHOUT_FENCE_APPLIED
  :: d_step { x[0].place.number == log.number && x[0].place.sequence < log.sequence -> broadcastLast(0) }
#endif
#ifdef WITHOUT_FENCE_COMMIT /* the fence is reported before the database has confirmed the commit */
  :: d_step { x[1].wanted != 0 -> SET(x[1].known, x[1].place.number, x[1].wanted) }
#endif
  :: d_step { hasBeenVictim && !fenced && REACHED -> fenced = 1 }
  od
}
