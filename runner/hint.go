package runner

import "strings"

// wayOn is what can be done about a run that ended before its steps did: the command
// that resumes it, with these flags. do comes before it, where something must be done
// first. The world of a sandbox is gone with its process, so there it is another run.
func (x *run) wayOn(do, flags string) string {
	way := "runner resume " + x.id
	if x.sandbox != "" {
		way = "run it again"
	}
	if flags != "" && x.sandbox != "" {
		way += " with"
	}
	if flags != "" {
		way += " " + flags
	}
	if do != "" {
		way = do + ", then: " + way
	}
	if x.sandbox != "" {
		way += " (the world of a sandbox ends with its process, and nothing in it can be resumed)"
	}
	return way
}

// quoted is a word as a shell takes it.
func quoted(word string) string {
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
