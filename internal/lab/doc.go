// Package lab runs the shipped runbooks against the real programs: pika, codis-dashboard and codis-proxy as they are
// installed, a real ZooKeeper, and clients that write through two proxies while slots move. `make lab` runs it;
// docs/lab.md tells what it needs and what it measures.
//
// The runner is the program, built once, and everything is seen as an operator sees it: exit codes, output, the journal,
// and what the servers say. The verdict is the ledger's: a write that was acknowledged must be readable at the end.
// Nothing here depends on how the programs were built, and nothing is left running.
package lab
