// Package acceptance holds the proofs that need real processes: the runner as a program, started, killed, interrupted
// and starved as it will be, against real servers and a real sshd. It is black box: TestMain builds the binary, and the
// tests read what a user can read (exit codes, output, the journal, the servers).
//
// Nothing here asserts how long something took; tests wait for a state, within a limit. What is missing on the machine
// fails the test with the command that installs it.
//
//	go test ./internal/acceptance                    the short lane
//	ACCEPTANCE_BINARY=/usr/bin/runner go test …      of a program that was built elsewhere
//	KILLS=200 go test -run Killed …                  the long ones; SEED=… repeats a lane of TestKilledAnywhere
package acceptance
