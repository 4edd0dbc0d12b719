// Package zookeeper is a stand-in for a ZooKeeper 3.8 server: a Tree of nodes with versions, ephemeral owners and one-shot
// watches, and a Server that speaks the wire protocol to clients such as go-zookeeper. Start reading at Tree (tree.go);
// the protocol's frames are in wire.go, a client's connection in connection.go.
//
// A simulated Codis keeps its state in a Tree directly, and runbooks read the same Tree through a Server.
//
// The same table of tests runs against a real ZooKeeper 3.8 where one is installed. What it holds the simulator to:
//
//   - A sequential name counts the children ever created below its parent; cversion counts creations and removals.
//   - Every request that would write takes a zxid, also one that is refused; opening and closing a session take one too.
//   - An event that a client waits for reaches it before the answer of the request that caused it.
//   - A session outlives its connection until its timeout is over, and takes its ephemeral nodes with it then.
//
// What is not simulated: ensembles, quotas, containers and TTL nodes, persistent watches, SASL, dynamic reconfiguration.
package zookeeper
