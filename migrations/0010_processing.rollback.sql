DROP TABLE processing_queue;
