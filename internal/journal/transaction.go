package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

// transaction is a transaction with the context that bounds it. Its errors have the
// statement.
type transaction struct {
	ctx context.Context
	tx  *sql.Tx
}

// inTransaction runs f in a transaction, which it commits unless f fails.
func inTransaction(ctx context.Context, db interface {
	BeginTx(context.Context, *sql.TxOptions) (*sql.Tx, error)
}, f func(transaction) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	if err = f(transaction{ctx, tx}); err == nil {
		err = tx.Commit()
	}
	if err != nil { // SQLite may have rolled back itself
		if failed := tx.Rollback(); failed != nil && !errors.Is(failed, sql.ErrTxDone) {
			err = errors.Join(err, fmt.Errorf("roll back: %w", failed))
		}
	}
	return err
}

// exec runs statements that return nothing.
func (t transaction) exec(statements string, args ...any) error {
	_, err := t.tx.ExecContext(t.ctx, statements, args...)
	return failed(statements, err)
}

// get reads the only row of a query.
func (t transaction) get(into []any, query string, args ...any) error {
	return failed(query, t.tx.QueryRowContext(t.ctx, query, args...).Scan(into...))
}

// each calls f with the Scan of each row of a query.
func (t transaction) each(f func(scan func(...any) error) error, query string, args ...any) error {
	rows, err := t.tx.QueryContext(t.ctx, query, args...)
	if err != nil {
		return failed(query, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return err
		}
	}
	return failed(query, errors.Join(rows.Err(), rows.Close()))
}

// failed adds the beginning of the statement to an error.
func failed(statement string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%.80s: %w", strings.Join(strings.Fields(statement), " "), err)
}
