// Package codis is a stand-in for Codis 3.2.2: a Dashboard with its HTTP API, its state in a coordinator, its loops and its migration of slots, and
// Proxies that route real RESP traffic to servers by their addresses. Start reading at topom.go, one life of a dashboard, and at router.go, the table of
// a proxy; what both have as processes (a life, a freeze, an HTTP port with faults) is in process.go and http.go.
//
// What it answers is held to 185 recorded exchanges with the real programs (TestRecordings), and its behaviour to what was measured on them. The facts
// that decide how slots are moved:
//
//   - A held slot (locked in a proxy's table) blocks the reader of every connection that asks for it, with all that is behind in the pipeline. A client
//     that gives up meanwhile has its request carried out after the release.
//   - A fillslots waits for the requests of its slots that are under way, and everything that looks at the table waits with it.
//   - No hold ends by itself. Reinit and online of the proxy, a resync of the source group, and an action on the slot open it; a restart of the dashboard, a
//     reload and its polls do not. A new proxy comes in open; one that restarts has an empty table until the dashboard finds it.
//   - A frozen proxy carries out what had timed out when it thaws: a hold comes into force when nobody expects it.
//   - assign stores first and pushes then. With a dead proxy in the list it fails after it has been stored and pushed to the others; with a frozen one it
//     holds the mutex of the dashboard for a minute, and every call but /topom/model waits.
//   - A slot has moved when its source says that nothing remains. Nobody compares anything.
//   - The lock is a node that a kill leaves behind. Migration pauses are remembered nowhere.
//
// What is not simulated: codis-fe and codis-ha, fail-overs by sentinels (what they say of the masters is shown), etcd and the file system as
// coordinators, metrics, /debug.
package codis
