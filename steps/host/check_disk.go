package host

import (
	"context"
	"fmt"

	"runbook/schema"
	"runbook/steps"
)

type checkDiskIn struct {
	Path    string      `yaml:"path,required" doc:"Absolute path; one that is not there yet counts as its nearest parent that is."`
	MinFree schema.Size `yaml:"min_free" doc:"Least free space, such as 20gb; less is a failure."`
}

type checkDiskOut struct {
	Free       schema.Size `yaml:"free" doc:"Bytes that this user may still fill." min:"0"`
	Total      schema.Size `yaml:"total" doc:"Bytes of the file system." min:"0"`
	Rotational *bool       `yaml:"rotational" doc:"Whether the disk spins; null where the kernel does not tell (overlay, network)."`
}

func checkDisk() *steps.Kind[checkDiskIn, checkDiskOut] {
	return &steps.Kind[checkDiskIn, checkDiskOut]{
		Name:   "host.check-disk",
		Doc:    "Tells the size and free space of the file system that holds a path (statfs), and whether its disk spins (/sys/dev/block). It fails below min_free.",
		Effect: steps.Read, On: []string{KindName}, TargetOptional: true,
		Example: `{id: room, uses: host.check-disk, with: {path: /tmp, min_free: 1kb}}`,
		Pitfalls: []string{
			"A full sync needs the dump and the new data at the same time: ask for twice the size of the data.",
			"Space that is reserved for root is not counted as free.",
		},
		Valid: func(in checkDiskIn, unknown func(string) bool) []steps.Problem {
			return absolute("path", in.Path, unknown)
		},
		Read: func(ctx context.Context, v steps.View, in checkDiskIn) (checkDiskOut, error) {
			m, err := Of(ctx, v, "")
			if err != nil {
				return checkDiskOut{}, err
			}
			d, err := m.Disk(ctx, in.Path)
			if err != nil {
				return checkDiskOut{}, err
			}
			out := checkDiskOut{Free: schema.Size(d.Free), Total: schema.Size(d.Total), Rotational: d.Rotational}
			if out.Free < in.MinFree {
				return out, steps.Errorf("disk", "disk of %s on %s has %s free of %s, and %s are needed", d.Path, m, bytesText(d.Free), bytesText(d.Total), bytesText(int64(in.MinFree))).
					WithHint("free some space, or choose another path")
			}
			return out, nil
		},
	}
}

// bytesText prints a size with one unit.
func bytesText(n int64) string {
	const units = "kMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d bytes", n)
	}
	f, i := float64(n)/1024, 0
	for ; f >= 1024 && i < len(units)-1; i++ {
		f /= 1024
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}
