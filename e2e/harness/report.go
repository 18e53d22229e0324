package main

import (
	"errors"
	"os"

	"github.com/tenantmesh/tenantmesh/e2e/mesh"
)

// write writes the report and returns its path.
func (c *config) write(report *mesh.Report) (string, error) {
	f, err := create(c.report)
	if err != nil {
		return "", err
	}
	return f.Name(), errors.Join(report.WriteHTML(f), f.Close())
}

func create(path string) (*os.File, error) {
	if path == "" {
		return os.CreateTemp("", "tenantmesh-report-*.html")
	}
	return os.Create(path)
}
