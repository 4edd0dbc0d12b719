// Package redis is a stand-in for a Redis server: real RESP on a loopback port, the data types and the administration
// that a migration touches, and replication between the servers of one Network with the states and the delays of the
// real thing. Start reading at Server (server.go); a command's way through the checks is in process.go, in the order of
// the real server's own; replication is in repl.go. The data, and the commands on keys, are in package keyspace.
//
// What it answers is held, word for word, to recordings of redis-server 7.0.15 in testdata/recordings/redis
// (TestRecordings plays them; TestRecord makes them). The facts of those recordings that decide how a fail-over is done:
//
//   - CLIENT PAUSE WRITE holds commands that write (also PUBLISH, and a write queued inside MULTI); reads, CONFIG, INFO,
//     ROLE, CLIENT and REPLICAOF go through. CLIENT PAUSE ALL holds every one of them, CLIENT UNPAUSE too.
//   - A held writer is judged again when the pause ends, by what the server is then: on a master that has become a
//     replica it gets -READONLY and nothing is written. A write that arrives at a paused replica is refused at once.
//   - A pause holds the stream of the server's own master as well: slave_read_repl_offset goes on,
//     slave_repl_offset and the data stand still until CLIENT UNPAUSE. So release the pause before waiting for it to catch up.
//   - A pause that ends before the old master was made a replica lets the held writers through, and what they write is lost.
//     With min-replicas-to-write 1 set on it (CONFIG goes through a pause), the promotion of its only replica makes it answer
//     -NOREPLICAS by itself: the one fence that does not depend on the fail-over being quick, or alive.
//   - REPLICAOF neither hinders nor ends a pause; a server promoted while paused goes on holding.
//   - The old master needs no full sync behind the new one, if nothing was written to it after the promotion.
//   - A connection that closes while it is held takes its command with it.
//
// What is not simulated: pub/sub delivery, streams, scripts, blocking pops, ACLs beyond the default user, eviction,
// cluster mode, and RDB files (DUMP gives an opaque payload that only RESTORE of this package reads).
package redis
