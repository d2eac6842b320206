PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO "meta" VALUES('reserved',100000);
CREATE TABLE records (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, type TEXT NOT NULL, name TEXT, from_ TEXT, to_ TEXT, cause TEXT, run INTEGER,
    message TEXT NOT NULL, data TEXT NOT NULL
);
INSERT INTO "records" VALUES(10,1.79531253649665093418e+09,'state','flaky','STOPPED','STARTING','autostart',1,'starting run 1 (autostart)','{"pid":null,"restarts":0,"flapping":false}');
INSERT INTO "records" VALUES(14,1.79531253649697232249e+09,'state','stopped','STOPPED','STARTING','autostart',1,'starting run 1 (autostart)','{"pid":null,"restarts":0,"flapping":false}');
INSERT INTO "records" VALUES(23,1.79531253653904724126e+09,'state','flaky','STARTING','RUNNING','autostart',1,'running, pid 4113, run 1','{"pid":4113,"restarts":0,"flapping":false}');
INSERT INTO "records" VALUES(27,1.79531253653964281086e+09,'state','stopped','STARTING','RUNNING','autostart',1,'running, pid 4117, run 1','{"pid":4117,"restarts":0,"flapping":false}');
INSERT INTO "records" VALUES(29,1.79531253654317402837e+09,'state','flaky','RUNNING','BACKOFF','exited',1,'exited with 1 after 0.0 s; restart 1 in 3495.0 s','{"pid":null,"restarts":1,"flapping":false,"exit":{"code":1},"uptime_seconds":0.004,"cpu_seconds":0.000986}');
INSERT INTO "records" VALUES(36,1.79531253701900935177e+09,'state','stopped','RUNNING','STOPPING','operator',1,'stopping (operator)','{"pid":4117,"restarts":0,"flapping":false}');
INSERT INTO "records" VALUES(37,1.79531253702038884161e+09,'state','stopped','STOPPING','STOPPED','operator',1,'stopped; killed by SIGTERM','{"pid":null,"restarts":0,"flapping":false,"exit":{"signal":"SIGTERM","core":false},"uptime_seconds":0.481,"cpu_seconds":0.001135}');
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, run INTEGER NOT NULL, cause TEXT, detail TEXT NOT NULL, started_at REAL NOT NULL,
    running_at REAL, ended_at REAL, end_cause TEXT, end_detail TEXT, exit TEXT, pid INTEGER, uptime_seconds REAL, max_rss_bytes INTEGER,
    cpu_seconds REAL
);
INSERT INTO "runs" VALUES(10,'flaky',1,'autostart','starting run 1 (autostart)',1.79531253649665093418e+09,1.79531253653904724126e+09,1.79531253654317402837e+09,'exited','exited with 1 after 0.0 s; restart 1 in 3495.0 s','{"code":1}',4113,0.004,NULL,0.000986);
INSERT INTO "runs" VALUES(14,'stopped',1,'autostart','starting run 1 (autostart)',1.79531253649697232249e+09,1.79531253653964281086e+09,1.79531253702038884161e+09,'operator','stopping (operator)','{"signal":"SIGTERM","core":false}',4117,0.481,NULL,0.001135);
CREATE TABLE totals (name TEXT NOT NULL, cause TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (name, cause)) WITHOUT ROWID;
CREATE INDEX records_by_name ON records (name, id);
CREATE INDEX runs_by_name ON runs (name, id);
COMMIT;
