package pika

import (
	"strings"

	"runbook/steps"
	"runbook/steps/redis"
)

// What the errors that Pika answers mean. All say ERR (or Err), so only the words tell; none
// of them was carried out, and the server's words are kept.
//
//	busy          a slot is being added or deleted, or was left by a replica just now: may pass
//	exists        a slot or table that was to be added is there; nothing of the request was done
//	absent        a slot or table that was asked for is not there; nothing of the request was done
//	attached      a slot that was to be deleted follows a master
//	unsupported   the release or the mode does not know the command, or the setting
//	readonly      the slot (or the server) is a replica
//	refused       the master could not be reached by the server: may pass
//	conflict      the order does not fit the state the server is in
//
// Beside these there are the kinds of steps/redis.
var answers = []struct {
	words     string // in the error's text, in lower case
	kind      string
	temporary bool
	hint      string
}{
	{"a change operation is under way", "busy", true, "another slot is being added or deleted on this instance; wait until that ends"},
	{") in syncing", "busy", true, "the slot still has a replica, or lost it less than 25 s ago: detach the replica first (pika.slotsslaveof with none: true)"},
	{"sync slave partition (", "attached", false, "the slot follows a master: detach it first (pika.slotsslaveof with none: true)"},
	{" not exist", "absent", false, ""},
	{" exist", "exists", false, ""}, // also "table already exist!"
	{"only support on sharding mode", "unsupported", false, "the instance runs in mode classic: slots are a matter of instance-mode sharding"},
	{"only support on classic mode", "unsupported", false, "the instance runs in mode sharding"},
	{"not supported in current configuration", "unsupported", false, "an instance in mode sharding replicates by slots: pika.slotsslaveof"},
	{"unknown or unsupported command", "unsupported", false, "this release of Pika does not know the command"},
	{" not supported", "unsupported", false, "this release of Pika does not migrate keys this way"},
	{"unsupported config parameter", "unsupported", false, "this release of Pika cannot change the setting while it runs"},
	{"partition not found", "absent", false, "the instance does not hold the slot of the key"},
	{"slots set empty", "absent", false, "the instance holds no slots"},
	{"table not found", "absent", false, ""},
	{"invalid table for", "absent", false, ""},
	{"not found!", "absent", false, "add the slot first (pika.addslots)"},
	{"server in read-only", "readonly", false, "the slot is a replica: write to its master"},
	{"connect remote node error", "refused", true, "the server could not connect to the master's replication port (port + 2000); its slots are as before"},
	{"you fucked up", "conflict", false, "an instance cannot follow itself"},
	{"table have slots", "conflict", false, ""},
	{"not in correct state for slaveof", "conflict", false, "a connected double master takes no slaveof"},
	{"can not set other server as the peer-master", "conflict", false, "a double master follows its configured peer alone"},
	{"already master of others", "conflict", false, "the instance has replicas of its own: detach them first"},
	{"no password is set", "auth", false, "the server asks for no password: take it out of the target, or set requirepass there"},
	{"invalid password", "auth", false, "check the target's password"},
}

// judge gives an error that the server answered the class that its words have. Others are as they were.
func judge(err error) error {
	said, ok := redis.Answered(err)
	if !ok {
		return err
	}
	text := strings.ToLower(said.Text)
	for _, a := range answers {
		if strings.Contains(text, a.words) {
			e := *steps.Classify(err)
			e.Kind, e.Temporary, e.Unknown, e.Hint = a.kind, a.temporary, false, a.hint
			return &e
		}
	}
	return err
}

// isKind tells the class of an error.
func isKind(err error, kinds ...string) bool {
	if err == nil {
		return false
	}
	got := steps.Classify(err).Kind
	for _, k := range kinds {
		if got == k {
			return true
		}
	}
	return false
}

// isAnswered tells an error that the server answered.
func isAnswered(err error) bool {
	_, ok := redis.Answered(err)
	return ok
}

// isInvalidArgument: the server does not read this form of the command.
func isInvalidArgument(err error) bool {
	said, ok := redis.Answered(err)
	return ok && strings.Contains(strings.ToLower(said.Text), "invalid argument")
}
