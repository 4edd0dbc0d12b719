package codis

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"

	"runbook/steps/host"
)

// codisHA looks for codis-ha among the processes of the hosts: it asks the dashboard as anybody does, and
// no answer of Codis shows it.
func (h *health) codisHA(ctx context.Context) error {
	h.unseen["codis-ha"] = len(h.in.Hosts) == 0
	for _, name := range h.in.Hosts {
		m, err := host.Target().View(ctx, h.v, string(name))
		if err != nil {
			return err
		}
		entries, err := m.List(ctx, "/proc")
		if err != nil {
			return fmt.Errorf("look for codis-ha on %s: %w", m, err)
		}
		for _, e := range entries {
			pid, err := strconv.Atoi(e.Name)
			if err != nil {
				continue
			}
			p, err := m.Process(ctx, pid)
			if err != nil { // it has ended meanwhile
				if ctx.Err() != nil {
					return err
				}
				continue
			}
			if len(p.Argv) > 0 && filepath.Base(p.Argv[0]) == "codis-ha" {
				h.report("codis-ha", "codis-ha runs on %s as process %d", m, pid)
			}
		}
	}
	return nil
}
