// Package checklist holds the checks that migrations in the field have taught to the worlds that they are about: each
// breaks a world, sees its check fire with its name, repairs the world and sees the check pass. docs/checklist.md is the
// table of them, and TestTable compares the two.
//
// Start at TestChecklist (checklist_test.go); the rows are in pika_test.go, codis_test.go and twemproxy_test.go, the
// worlds and how a kind of step runs in one in world_test.go.
//
//	go test ./internal/checklist -run 'Checklist/S1-24'
package checklist
