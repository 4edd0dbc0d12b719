package pika

import (
	"runbook/steps"
	"runbook/steps/redis"
)

// configSet is redis.config-set on a Pika: the commands are the same, what is to be known differs.
func configSet() *steps.Definition {
	for _, d := range redis.Kinds() {
		if d.Name != "redis.config-set" {
			continue
		}
		own := *d
		own.Name = "pika.config-set"
		own.On = []string{KindName}
		own.Doc = "Changes one setting of a running server, where the release can. Sends CONFIG GET and CONFIG SET, and CONFIG REWRITE where asked."
		own.Example = `{id: slow_sync, uses: pika.config-set, target: pika1, with: {name: db-sync-speed, value: 50}}`
		own.Pitfalls = []string{
			"Most settings of Pika take effect at the start alone (network-interface, default-slot-num, double-master-*, masterauth): the server then refuses, and its words are kept.",
			"slave-read-only can be changed up to 3.0, and is unknown to CONFIG GET from 3.1 on.",
			"db-sync-speed (MB/s) works at once, also on a full sync under way.",
			"slotmigrate (2.3) covers keys that are written from then on: those before it need SLOTSRELOAD.",
			"The undo puts the old value back only while the value is still the one this step set.",
			"The old value of a secret (requirepass, masterauth, userpass) is never kept, so there is no way back for it but a step of its own.",
			"Without rewrite the setting is gone after a restart. Nobody can see from outside whether the file has it, so with rewrite the probe cannot say that all is done.",
		}
		return &own
	}
	panic("pika: redis.config-set is gone")
}
