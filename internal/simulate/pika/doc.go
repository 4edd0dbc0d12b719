// Package pika is a stand-in for a Pika server: real RESP on a loopback port, the data types and the administration that a
// migration touches, and replication between the servers of one Network with the states, the orders and the delays of the
// real thing. Releases are 3.4.0 and 3.2.9 in sharding or classic mode, 2.3.6 and 2.3.0. Start reading at Server
// (server.go); a command's way through the checks is in process.go, the replication of slots in sync.go and ship.go, that of
// whole instances in single.go (3.x, classic) and old.go (2.3).
//
// What it answers is held, word for word, to recordings of the real programs in testdata/recordings/pika (TestRecordings
// plays them in scenes). The facts of those recordings that decide how slots are moved:
//
//   - +OK of slotsslaveof means that the slot's state was set, nothing more. A replica says kConnected before its master
//     lists it with a lag, for up to 20 s after its master died, and, behind a master that a full sync has filled, for ever
//     without a single record.
//   - A full sync goes BACK to kTryConnect after kWaitDBSync. Asked for again meanwhile it never ends; nor does it where rsync
//     is missing or the secrets differ. No state has a time limit.
//   - Lag 0 and equal offsets mean that the replica has the records in its binlog. One of sync-thread-num threads carries
//     each out later, chosen by the hash of its key, also after the slot was promoted (SetApplyDelay shows it). Where the
//     slot was deleted meanwhile the whole server dies of it.
//   - Who replicates whom is nowhere written down: a process that restarts is the writable master of all of its slots.
//   - A slot whose own writes are as long as its master's records goes on with them, connected, at lag 0, and is not equal.
//   - slotsslaveof of several slots is not one step: those before the one that failed have changed.
//
// What is not simulated: one key holding values of several types (as in Redis, a key has one), the commands that dataFlags
// does not list, moving slots between 2.3.6 instances (slotmigrate), consensus-level above 0, pub/sub and INFO debug.
package pika
