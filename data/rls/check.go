package rls

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Finding is a hole, or a way to learn of another tenant's rows.
type Finding struct {
	// Code is its kind, such as "rls-disabled".
	Code string `json:"code"`
	// Object names what is at fault, such as "table public.orders".
	Object string `json:"object"`
	// Detail says why, in a sentence.
	Detail string `json:"detail"`
	// Fix is the SQL that mends it. Read it before you run it: it may rebuild a key or take a privilege away.
	Fix string `json:"fix"`
}

// FindingsError refuses a database in which [Check] found something.
type FindingsError struct {
	// Findings has at least one, in the order in which to mend them.
	Findings []Finding
}

// Error implements error.
func (e *FindingsError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "rls: %d findings", len(e.Findings))
	for _, f := range e.Findings {
		fmt.Fprintf(&b, "\n%s: %s: %s; mend it with: %s", f.Code, f.Object, f.Detail, f.Fix)
	}
	return b.String()
}

// Check says what in the database would let s.Roles see the rows of another
// tenant, or learn of them, in the order in which to mend it: a fix may bring up the next
// finding, as an added column does for the keys that lack it. db is a pool or connection of pgx.
func Check(ctx context.Context, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, s Schema) ([]Finding, error) {
	return check(ctx, func(ctx context.Context, query string, dest ...any) error {
		return db.QueryRow(ctx, query).Scan(dest...)
	}, s)
}

// CheckDB is [Check] for database/sql, with any driver.
func CheckDB(ctx context.Context, db *sql.DB, s Schema) ([]Finding, error) {
	return check(ctx, func(ctx context.Context, query string, dest ...any) error {
		return db.QueryRowContext(ctx, query).Scan(dest...)
	}, s)
}

// check asks for the findings as one row of JSON, which all drivers read.
func check(ctx context.Context, row func(context.Context, string, ...any) error, s Schema) ([]Finding, error) {
	query, err := s.ReportSQL()
	if err != nil {
		return nil, err
	}
	var text string
	if err := row(ctx, "SELECT coalesce(json_agg(f), '[]')::text FROM ("+query+") f", &text); err != nil {
		return nil, fmt.Errorf("rls: checking the database: %w", err)
	}
	var findings []Finding
	if err := json.Unmarshal([]byte(text), &findings); err != nil {
		return nil, fmt.Errorf("rls: checking the database: %w", err)
	}
	return findings, nil
}
