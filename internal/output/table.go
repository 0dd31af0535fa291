package output

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"

	"portwatcher/internal/model"
)

// processesInTable bounds a row's width; JSON has all of them.
const processesInTable = 3

// WriteOpen writes a list of open endpoints: an array, or a table for people.
func WriteOpen(w io.Writer, format Format, open []model.Open) error {
	if format == JSON {
		if open == nil {
			open = []model.Open{}
		}
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(open)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CONTAINER\tPORT\tADDRESS\tEXPOSURE\tPROCESSES")
	for _, row := range mergeWildcards(open) {
		fmt.Fprintf(table, "%s\t%d/%s\t%s\t%s\t%s\n", Printable(row.ContainerName()), row.Port, row.Protocol,
			row.addresses, exposureCell(&row.Listener), processesCell(row.Processes))
	}
	return table.Flush()
}

type row struct {
	model.Listener
	addresses string
}

// mergeWildcards makes one row of the IPv4 and the IPv6 wildcard of one port.
// The list is ordered by container and port, so they stand close together.
func mergeWildcards(open []model.Open) []row {
	var rows []row
	for _, o := range open {
		r := row{Listener: o.Listener, addresses: AddressText(&o.Listener)}
		i := slices.IndexFunc(rows, func(other row) bool { return mergeable(&other.Listener, &r.Listener) })
		if i < 0 {
			rows = append(rows, r)
			continue
		}
		first := &rows[i]
		first.addresses += ", " + r.Address.String() // both families: "IPv6 only" would mislead
		if model.CompareReach(r.Exposure, first.Exposure) < 0 {
			first.SetReach(r.Exposure, r.Published)
		}
		first.Processes = model.MergeProcesses(first.Processes, r.Processes)
	}
	return rows
}

func mergeable(a, b *model.Listener) bool {
	return a.Endpoint().Container == b.Endpoint().Container && a.Namespace == b.Namespace && a.Port == b.Port && a.Protocol == b.Protocol &&
		a.Address == netip.IPv4Unspecified() && b.Address == netip.IPv6Unspecified()
}

func exposureCell(l *model.Listener) string {
	if l.Exposure == model.Published {
		return "published " + strings.Join(l.Published, ", ")
	}
	return strings.TrimPrefix(string(l.Exposure)+ForwardSuffix(l.Forward), " ")
}

func processesCell(processes []model.Process) string {
	if len(processes) == 0 {
		return "-"
	}
	return ProcessList(processes, processesInTable)
}
